"""CloudEvents 1.0 over HTTP: what goes out with a delivery, what comes in at `/routing/events`.

https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/bindings/http-protocol-binding.md
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Callable, Container, Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from types import MappingProxyType
from typing import Any, Literal, NamedTuple
from urllib.parse import unquote_to_bytes

from esb_workers.errors import FieldError, Invalid, Malformed, UnsupportedMediaType
from esb_workers.transport import attributes as rules
from esb_workers.transport.attributes import REQUIRED, TRACEPARENT
from esb_workers.transport.request import HOP_BY_HOP

Format = Literal["binary", "structured", "payload"]

JSON_TYPE = "application/json"
STRUCTURED_TYPE = "application/cloudevents+json"
BATCH_TYPE = "application/cloudevents-batch+json"

Pairs = list[tuple[str, str]]

# §3.1.3.2: what stands in a header as it is: U+0021 to U+007E but the quote and the per cent sign.
_TO_ENCODE = re.compile(r"[^!#$&-~]")
_NOT_IN_URI = re.compile(r"%(?![0-9A-Fa-f]{2})|[^A-Za-z0-9\-._~:/?#\[\]@!$&'()*+,;=%]")
_NOT_IN_REFERENCE = re.compile(r"[\\^`{|}<>]")
_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_RESERVED_PREFIXES = ("ce-", "webhook-", "content-")
_RESERVED = HOP_BY_HOP | {"host", "authorization", "idempotency-key"}


# --- out -----------------------------------------------------------------------------------------------


class OutgoingEvent(NamedTuple):
    """A message on its way out. `time` as on the wire; `data` is JSON text, sent byte for byte."""

    id: str
    source: str
    type: str
    time: str
    correlation_id: str
    data: str
    extensions: Mapping[str, str] = MappingProxyType({})
    dataref: str | None = None  # where the data is, too or alone


def encode(event: OutgoingEvent, form: Format) -> tuple[Pairs, bytes]:
    """Headers and body. `binary`: attributes as headers; `structured`: in the body; `payload`: no attributes."""
    if form == "structured":
        return [("Content-Type", STRUCTURED_TYPE + "; charset=utf-8")], _envelope(event).encode()
    headers = [("Content-Type", JSON_TYPE)]
    if form == "binary":
        headers += [
            ("ce-specversion", "1.0"),
            ("ce-id", encode_value(event.id)),
            ("ce-source", uri_header(event.source)),
            ("ce-type", encode_value(event.type)),
            ("ce-time", event.time),
            ("ce-correlationid", encode_value(event.correlation_id)),
            *((f"ce-{name}", encode_value(value)) for name, value in event.extensions.items()),
        ]
        if event.dataref is not None:
            headers.append(("ce-dataref", uri_header(event.dataref)))
    return headers, event.data.encode()


def _envelope(event: OutgoingEvent) -> str:
    attributes = {
        "specversion": "1.0",
        "id": event.id,
        "source": uri_reference(event.source),
        "type": event.type,
        "time": event.time,
        "correlationid": event.correlation_id,
        "datacontenttype": JSON_TYPE,
        **event.extensions,
    }
    if event.dataref is not None:
        attributes["dataref"] = uri_reference(event.dataref)
    # The payload goes in as text: read and written anew, its numbers and key order could change.
    return f'{json.dumps(attributes, ensure_ascii=False)[:-1]}, "data": {event.data}}}'


def encode_value(text: str) -> str:
    """A header value as CloudEvents encodes it (per cent, upper-case hex of UTF-8)."""
    return text if not _TO_ENCODE.search(text) else _TO_ENCODE.sub(_percent, text)


def is_plain(text: str) -> bool:
    """Whether a header's value is encoded as it is."""
    return not _TO_ENCODE.search(text)


def uri_reference(text: str) -> str:
    """`text` with what a URI reference may not hold percent-encoded; triples already encoded stay."""
    return _NOT_IN_URI.sub(_percent, text)


@lru_cache(maxsize=1024)
def uri_header(reference: str) -> str:
    """A URI reference as a header's value."""
    # One round of encoding does for both the URI and the header: decoded once, as receivers do, the header
    # is the reference that was sent, whatever characters that holds.
    return _NOT_IN_REFERENCE.sub(_percent, encode_value(reference))


def _percent(match: re.Match[str]) -> str:
    return "".join(f"%{byte:02X}" for byte in match.group().encode("utf-8", "replace"))


def passed_on(message_headers: Mapping[str, str], taken: Container[str]) -> Pairs:
    """The message's headers that go out: those that carry no meaning of ours, nor stand in `taken` (lower case)."""
    return [
        (name, encode_value(value))
        for name, value in message_headers.items()
        if _may_pass(lower := name.lower()) and lower not in taken and _TOKEN.fullmatch(name)
    ]


def _may_pass(lower: str) -> bool:
    return lower not in _RESERVED and not lower.startswith(_RESERVED_PREFIXES)


# --- in ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class IncomingEvent:
    """A received event in the words of the bus. `headers` holds all attributes that are not named here."""

    id: str
    source: str
    type: str
    payload: Any
    headers: dict[str, str] = field(default_factory=dict)
    correlation_id: str | None = None

    @property
    def traceparent(self) -> str | None:
        """The trace that the event began in, if it names a valid one."""
        found = self.headers.get("traceparent", "")
        return found if TRACEPARENT.fullmatch(found) else None


Mode = Literal["binary", "structured", "batched"]
Loads = Callable[[bytes], Any]


def mode_of(content_type: str | None) -> Mode:
    """Which mode a request is in. Raises UnsupportedMediaType for event formats other than JSON."""
    media = _media_type(content_type)
    if media.startswith("application/cloudevents-batch"):
        wanted, mode = BATCH_TYPE, "batched"
    elif media.startswith("application/cloudevents"):
        wanted, mode = STRUCTURED_TYPE, "structured"
    else:
        return "binary"
    if media != wanted:
        raise UnsupportedMediaType(f"events are taken as {wanted}, not as {media}")
    return mode  # type: ignore[return-value]


def decode(headers: Iterable[tuple[str, str]], body: bytes, loads: Loads) -> IncomingEvent:
    """One event, binary or structured. `loads` reads JSON strictly and raises Malformed.

    Raises Invalid (naming the attribute), Malformed, UnsupportedMediaType.
    """
    pairs = list(headers)
    content_type = next((value for name, value in pairs if name.lower() == "content-type"), None)
    if mode_of(content_type) == "structured":
        return from_object(loads(body), loads)
    attributes, errors = _binary_attributes(pairs)
    if "datacontenttype" in attributes:
        errors.append(FieldError("ce-datacontenttype", "must not be sent: Content-Type takes its place"))
    if errors:
        raise Invalid(errors)
    return _event(attributes, _binary_payload(body, content_type, loads), prefix="ce-")


def decode_batch(body: bytes, loads: Loads) -> list[IncomingEvent | Invalid]:
    """The events of a batch, each or what is wrong with it. Raises Malformed, Invalid when it is no list."""
    items = loads(body)
    if not isinstance(items, list):
        raise Invalid([FieldError("", "a batch must be a JSON array of events")])
    return [_event_or_error(item, loads) for item in items]


def _event_or_error(item: Any, loads: Loads) -> IncomingEvent | Invalid:
    try:
        return from_object(item, loads)
    except Invalid as error:
        return error


def from_object(value: Any, loads: Loads) -> IncomingEvent:
    """An event in the JSON format; `loads` reads what it holds as base64. Raises Invalid."""
    if not isinstance(value, dict):
        raise Invalid([FieldError("", "an event must be a JSON object")])
    if "data" in value and "data_base64" in value:
        raise Invalid([FieldError("data_base64", "must not stand beside data")])
    attributes, errors = {}, []
    for name, item in value.items():
        if name in ("data", "data_base64") or item is None:
            continue
        try:
            attributes[name] = rules.as_text(name, item)
        except ValueError as error:
            errors.append(FieldError(name, str(error)))
    if errors:
        raise Invalid(errors)
    return _event(attributes, _structured_payload(value, attributes.get("datacontenttype"), loads))


def _binary_attributes(pairs: Iterable[tuple[str, str]]) -> tuple[dict[str, str], list[FieldError]]:
    attributes: dict[str, str] = {}
    errors = []
    for name, value in pairs:
        lower = name.lower()
        if not lower.startswith("ce-"):
            continue
        try:
            attributes[lower[3:]] = decode_value(value)
        except ValueError as error:
            errors.append(FieldError(lower, str(error)))
    return attributes, errors


def decode_value(text: str) -> str:
    """Undo `encode_value`: first quotes, then one round of percent-decoding. Raises ValueError."""
    text = text.strip()
    if len(text) >= 2 and text[0] == text[-1] == '"':
        text = re.sub(r"\\(.)", r"\1", text[1:-1])
    try:
        # WSGI hands bytes over 127 on as Latin-1; they are UTF-8 if anything.
        raw = text.encode("latin-1")
    except UnicodeEncodeError:
        raw = text.encode()
    try:
        return unquote_to_bytes(raw).decode("utf-8")
    except UnicodeDecodeError:
        raise ValueError("is not percent-encoded UTF-8") from None


def _event(attributes: dict[str, str], payload: Any, prefix: str = "") -> IncomingEvent:
    errors = rules.faults(attributes, prefix)
    if errors:
        raise Invalid(errors)
    rest = {name: value for name, value in attributes.items() if name not in (*REQUIRED, "datacontenttype")}
    correlation = attributes.get("correlationid")
    return IncomingEvent(attributes["id"], attributes["source"], attributes["type"], payload, rest, correlation)


def _structured_payload(value: dict[str, Any], content_type: str | None, loads: Loads) -> Any:
    if "data_base64" in value:
        return _from_base64(value["data_base64"], content_type, loads)
    data = value.get("data")
    if isinstance(data, str) and content_type is not None and not is_json(content_type):
        return _opaque(data.encode("utf-8", "replace"), content_type)
    return data


def _from_base64(text: Any, content_type: str | None, loads: Loads) -> Any:
    try:
        data = base64.b64decode(text, validate=True) if isinstance(text, str) else None
    except (binascii.Error, ValueError):
        data = None
    if data is None:
        raise Invalid([FieldError("data_base64", "must be base64")])
    if content_type is not None and is_json(content_type):
        try:
            return loads(data)
        except Malformed as error:
            raise Invalid([FieldError("data_base64", f"is said to be JSON: {error.detail}")]) from None
    return _opaque(data, content_type or "application/octet-stream")


def _binary_payload(body: bytes, content_type: str | None, loads: Loads) -> Any:
    if content_type is None or is_json(content_type):
        return loads(body) if body else None
    return _opaque(body, content_type)


def _opaque(data: bytes, content_type: str) -> dict[str, str]:
    return {"contentType": content_type, "base64": base64.b64encode(data).decode()}


def is_json(content_type: str) -> bool:
    """Whether data of this type is JSON."""
    media = _media_type(content_type)
    return media.endswith(("/json", "+json"))


def _media_type(content_type: str | None) -> str:
    return (content_type or "").partition(";")[0].strip().lower()
