"""A message off a queue, and what the bus takes it for where its listener says nothing. Pure."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from esb_workers.strictjson import parse_json
from esb_workers.transport import cloudevents
from esb_workers.transport.cloudevents import STRUCTURED_TYPE, IncomingEvent, encode_value

#: Both separators of CloudEvents' binding for AMQP.
_PREFIXES: Final = ("cloudEvents_", "cloudEvents:")
_LONGEST_ID: Final = 200


@dataclass(frozen=True, slots=True)
class Incoming:
    """What came, as it came. `properties` by the names of AMQP (`message_id`, `content_type` …)."""

    body: bytes
    headers: Mapping[str, Any] = field(default_factory=dict)
    properties: Mapping[str, Any] = field(default_factory=dict)
    tag: Any = None  # how the source acknowledges it

    @property
    def content_type(self) -> str | None:
        """What the body is said to be."""
        found = self.properties.get("content_type")
        return str(found) if found else None


def as_message(incoming: Incoming, queue: str, name: str) -> dict[str, Any]:
    """The message's fields, `messageType` only where there is one to be had. Raises Malformed, Invalid."""
    event = _event(incoming)
    if event is not None:
        return _of_event(event)
    fields: dict[str, Any] = {
        "source": f"/listeners/{name}",
        "payload": body_of(incoming),
        "headers": texts(incoming.headers),
    }
    wanted = {"messageType": "type", "correlationId": "correlation_id", "messageId": "message_id"}
    for ours, theirs in wanted.items():
        text = incoming.properties.get(theirs)
        if text not in (None, ""):
            fields[ours] = visible(str(text)) if ours != "messageType" else str(text)
    return fields


def body_of(incoming: Incoming) -> Any:
    """The body as JSON; what is said to be something else as `{"contentType", "base64"}`. Raises Malformed."""
    kind = incoming.content_type
    if not incoming.body:
        return None
    if kind is None or cloudevents.is_json(kind):
        return parse_json(incoming.body)
    return {"contentType": kind, "base64": base64.b64encode(incoming.body).decode()}


def visible(text: str) -> str:
    """An id in visible characters, at most 200 of them: percent-encoded, or a hash of what is longer."""
    encoded = encode_value(text)
    return encoded if len(encoded) <= _LONGEST_ID else hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()


def texts(headers: Mapping[str, Any]) -> dict[str, str]:
    """Headers as texts; tables, lists and bytes among them are left out."""
    found: dict[str, str] = {}
    for name, value in headers.items():
        if isinstance(value, bool):
            found[str(name)] = "true" if value else "false"
        elif isinstance(value, str | int | float):
            found[str(name)] = str(value)
    return {name: text for name, text in found.items() if "\0" not in name + text}


def _event(incoming: Incoming) -> IncomingEvent | None:
    """The CloudEvent that a message is, in binary or structured mode, if it is one."""
    media = (incoming.content_type or "").partition(";")[0].strip().lower()
    if media == STRUCTURED_TYPE:
        return cloudevents.from_object(parse_json(incoming.body), parse_json)
    plain = texts(incoming.headers)
    attributes = {
        name[len(prefix) :]: text for name, text in plain.items() for prefix in _PREFIXES if name.startswith(prefix)
    }
    if "specversion" not in attributes:
        return None
    value = attributes | {"data": None}
    event = cloudevents.from_object(value, parse_json)
    others = {name: text for name, text in plain.items() if not name.startswith(_PREFIXES)}
    return IncomingEvent(
        event.id, event.source, event.type, body_of(incoming), others | event.headers, event.correlation_id
    )


def _of_event(event: IncomingEvent) -> dict[str, Any]:
    fields = {
        "messageId": visible(event.id),
        "source": event.source,
        "messageType": event.type,
        "payload": event.payload,
        "headers": event.headers,
        "orderingKey": event.headers.get("partitionkey"),
        "expiresAt": event.headers.get("expirytime"),
        "traceparent": event.traceparent,
        "correlationId": visible(event.correlation_id) if event.correlation_id else None,
    }
    return {name: value for name, value in fields.items() if value is not None or name == "payload"}
