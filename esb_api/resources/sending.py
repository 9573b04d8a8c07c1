"""Sending: one message, many, and CloudEvents."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import partial
from typing import Any, Final

from flask import Response

from esb_api.accept import Each, Incoming, accept_many, accept_one, check_count, read_bodies, read_body, read_each
from esb_api.call import Call
from esb_api.operations import Resource
from esb_api.principals import Access
from esb_api.schemas.messages import (
    AcceptedAnswer,
    BatchAnswer,
    BatchBody,
    BatchShape,
    EventsAnswer,
    MessageAnswer,
    MessageBody,
)
from esb_api.validation import validated
from esb_workers.errors import FieldError, Invalid
from esb_workers.strictjson import parse_json
from esb_workers.transport import cloudevents
from esb_workers.transport.cloudevents import BATCH_TYPE, JSON_TYPE, STRUCTURED_TYPE, IncomingEvent

sending = Resource("sending")

_HEADERS: Final = ("Idempotency-Key", "X-Correlation-ID", "traceparent")

#: What a CloudEvents attribute is called in a message, for faults.
_ATTRIBUTES: Final = {
    "messageType": "type", "messageId": "id", "payload": "data", "correlationId": "correlationid",
    "orderingKey": "partitionkey", "expiresAt": "expirytime",
}  # fmt: skip

_EVENT: Final[dict[str, Any]] = {
    "type": "object",
    "description": "A CloudEvent in the JSON format.",
    "required": ["specversion", "id", "source", "type"],
    "properties": {
        "specversion": {"const": "1.0"},
        "id": {"type": "string", "minLength": 1},
        "source": {"type": "string", "minLength": 1},
        "type": {"type": "string", "minLength": 1},
        "data": {},
        "data_base64": {"type": "string"},
    },
}


@sending.operation(
    "POST", "/routing/send", access=Access.CLIENT, body=MessageBody, raw=True, cached=True, swift=True,
    answers={200: MessageAnswer, 202: AcceptedAnswer}, refusals=(409, 429), headers=(*_HEADERS, "Prefer"),
)  # fmt: skip
def send_message(call: Call, body: Any) -> Response:
    """Send a message.

    202 once it is stored. With `Prefer: wait=SECONDS`, 200 with the message as `GET /routing/messages/{id}` shows it
    if it comes to its end in time.
    """
    return accept_one(call, _asked(call), read_body(body))


@sending.operation(
    "POST", "/routing/send/batch", access=Access.CLIENT, body=BatchBody, raw=True, cached=True, size=16,
    answers={202: BatchAnswer}, refusals=(429,), headers=_HEADERS,
)  # fmt: skip
def send_batch(call: Call, body: Any) -> Response:
    """Send up to 1000 messages.

    A bad one never sinks the others: its entry bears the error. A batch that does not fit the quota is refused whole.
    """
    return accept_many(call, _asked(call), lambda: _messages(body))


def _messages(body: Any) -> list[Each]:
    values = validated(BatchShape, body).messages
    check_count(len(values))
    return read_bodies(values)


def _asked(call: Call) -> bytes:
    return call.raw_body(call.api.settings.max_body_bytes * 16)  # read before, within its limit


# --- CloudEvents -----------------------------------------------------------------------------------------


@sending.operation(
    "POST", "/routing/events", access=Access.CLIENT, cached=True, swift=True, size=16, refusals=(409, 429),
    media={STRUCTURED_TYPE: _EVENT, BATCH_TYPE: {"type": "array", "items": _EVENT}, JSON_TYPE: {}, "*/*": {}},
    answers={200: MessageAnswer, 202: EventsAnswer}, headers=(*_HEADERS, "Prefer"),
)  # fmt: skip
def send_events(call: Call) -> Response:
    """Send CloudEvents 1.0: binary, structured or batched, as the content type says.

    `type` becomes `messageType`, `id` `messageId`, `data` the payload, all other attributes headers; `partitionkey`
    is the `orderingKey` too, `expirytime` is `expiresAt`, a valid `traceparent` goes before the header's. Data that is
    no JSON becomes `{"contentType", "base64"}`. An event is known by `source` and `id`: sent again, it is taken once.
    """
    content_type = call.environ.get("CONTENT_TYPE") or None
    if cloudevents.mode_of(content_type) == "batched":
        raw = call.raw_body(call.api.settings.max_body_bytes * 16)
        return accept_many(call, raw, lambda: _batch(raw))
    raw = call.raw_body(call.api.settings.max_body_bytes)
    headers = list(call.headers.items())
    attributes = sorted(
        f"{name}:{value}" for name, value in headers if name.lower().startswith(("ce-", "content-type"))
    )
    asked = "\n".join(attributes).encode() + b"\n\n" + raw
    return accept_one(call, asked, lambda: _incoming(cloudevents.decode(headers, raw, parse_json)))


def _batch(raw: bytes) -> list[Each]:
    events = cloudevents.decode_batch(raw, parse_json)
    check_count(len(events))
    return [event if isinstance(event, Invalid) else read_each(partial(_incoming, event)) for event in events]


def _incoming(event: IncomingEvent) -> Incoming:
    values = {
        "source": event.source,
        "messageType": event.type,
        "messageId": event.id,
        "payload": event.payload,
        "headers": event.headers,
        "correlationId": event.correlation_id,
        "orderingKey": event.headers.get("partitionkey"),
        "expiresAt": event.headers.get("expirytime"),
    }
    try:
        body = validated(MessageBody, values)
    except Invalid as error:
        faults = [FieldError(_ATTRIBUTES.get(fault.path, fault.path), fault.message) for fault in error.errors]
        raise Invalid(faults) from None
    if body.expires_at is not None and body.expires_at <= datetime.now(UTC):
        raise Invalid([FieldError("expirytime", "must lie in the future")])
    return Incoming(body, event.source, event.traceparent)
