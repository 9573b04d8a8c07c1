"""The request of a delivery: a CloudEvent, signed, with the headers that make repeats harmless. Pure."""

from __future__ import annotations

import json
from functools import lru_cache
from typing import NamedTuple

from esb_workers.clock import to_wire
from esb_workers.delivery.prepare import Prepared
from esb_workers.registry.instances import Instance
from esb_workers.store.messages import StoredMessage
from esb_workers.transport import cloudevents, signing
from esb_workers.transport.adapter import PreparedRequest
from esb_workers.transport.cloudevents import OutgoingEvent

USER_AGENT = "python-esb"
#: What a service's own headers cannot replace: the id and the signature over it.
_SEALED = frozenset({"webhook-id", "webhook-timestamp", "webhook-signature", "idempotency-key"})

#: What a message's headers may replace: it says nothing that the bus promises.
_YIELDING = frozenset({"user-agent"})


def build(prepared: Prepared, message: StoredMessage, payload: str, instance: Instance, now: float) -> PreparedRequest:
    """The request for one attempt at `now` (seconds since the epoch). Raises ExpressionError for a bad path."""
    check = (prepared.claim.cursor or {}).get("check")
    delivery_id = prepared.claim.id
    trace = message.traceparent or traceparent(message.id, delivery_id)
    event = OutgoingEvent(
        id=_event_id(prepared, message),
        source=message.source,
        type=message.type,
        time=to_wire(message.created_at) or "",
        correlation_id=message.correlation_id,
        data=payload if check is None else json.dumps({"dataref": check["url"], "bytes": check["bytes"]}),
        extensions=_extensions(message, trace),
        dataref=_dataref(prepared) if check is None else check["url"],
    )
    headers, body = cloudevents.encode(event, instance.format)
    headers += signing.headers(instance.keys(now), delivery_id, int(now), body)
    headers += [
        ("Idempotency-Key", delivery_id),
        ("X-Correlation-ID", message.correlation_id),  # visible characters alone, so as it came in
        ("traceparent", trace),
        ("User-Agent", USER_AGENT),
    ]
    request = PreparedRequest()
    request.method = prepared.plan.method or instance.method
    request.url = instance.url(_path(prepared, message, payload, instance))
    request.headers = _merged(headers, prepared, instance)  # type: ignore[assignment]  # the caller reads any mapping
    request.body = body
    return request


def _event_id(prepared: Prepared, message: StoredMessage) -> str:
    """The caller's own id of the message, else ours; of a part of a split message, with its index."""
    index = (prepared.claim.cursor or {}).get("index")
    base = message.external_id or message.id
    return base if index is None else f"{base}-{index}"


def _dataref(prepared: Prepared) -> str | None:
    """Where the sender says that the payload lies: an event's attribute is a header of the message."""
    return next((text for name, text in prepared.headers.items() if name.lower() == "dataref" and text), None)


def _extensions(message: StoredMessage, trace: str) -> dict[str, str]:
    """The extension attributes that say what the bus knows of a message."""
    known = {
        "partitionkey": message.ordering_key,
        "expirytime": to_wire(message.expires_at),
        "traceparent": trace,
    }
    return {name: value for name, value in known.items() if value}


def traceparent(message_id: str, delivery_id: str) -> str:
    """A W3C trace context made of our ids, for messages that came without one."""
    return f"00-{message_id.replace('-', '')}-{delivery_id.replace('-', '')[16:]}-01"


def _merged(ours: cloudevents.Pairs, prepared: Prepared, instance: Instance) -> dict[str, str]:
    """Ours, then what the message passes on, all but the sealed ones replaced by the service's own."""
    if not instance.headers and not prepared.headers:
        return dict(ours)
    names = tuple([name for name, _ in ours])
    beside = _beside(names, tuple(prepared.headers.items()), instance.headers)
    merged = {name: value for name, value in ours if name not in beside.replaced} if beside.replaced else dict(ours)
    merged.update(beside.headers)
    return merged


class _Beside(NamedTuple):
    """Headers that go out beside ours, and those of ours in whose place they come."""

    headers: cloudevents.Pairs
    replaced: frozenset[str]


_Tuples = tuple[tuple[str, str], ...]


@lru_cache(maxsize=256)
def _beside(names: tuple[str, ...], passing: _Tuples, services: _Tuples) -> _Beside:
    """The same few for message after message. `names`: of ours."""
    own = {name.lower(): (name, value) for name, value in services if name.lower() not in _SEALED}
    # What of ours stays whatever a message's headers say.
    taken = frozenset(name.lower() for name in names) - _YIELDING | own.keys()
    passed = cloudevents.passed_on(dict(passing), taken)
    replacing = own.keys() | {name.lower() for name, _ in passed}
    replaced = frozenset(name for name in names if name.lower() in replacing)
    return _Beside([*passed, *own.values()], replaced)


def _path(prepared: Prepared, message: StoredMessage, payload: str, instance: Instance) -> str | None:
    template = prepared.plan.path
    if template is None:
        return instance.path
    if template.is_static:
        return template.render_text({})
    value = json.loads(payload)
    headers = dict(prepared.headers)
    part = (prepared.claim.cursor or {}).get("index")
    of_part = {} if part is None else {"payload": json.loads(message.payload or "null"), "item": value, "index": part}
    return template.render_string_percent_encoded(
        {
            "message": {"payload": value, "headers": headers, "source": message.source, "messageType": message.type},
            "payload": value,
            "headers": headers,
            "source": message.source,
            "messageType": message.type,
            "correlationId": message.correlation_id,
            "now": to_wire(message.created_at),  # the accept: the same path at every attempt
            **of_part,
        }
    )
