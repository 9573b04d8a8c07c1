"""A listener ready for use: its mapping compiled, its queue's address open."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import orjson

from esb_workers.bus import NewMessage
from esb_workers.clock import from_wire
from esb_workers.errors import ExpressionError, FieldError, Invalid
from esb_workers.expressions.templates import Template, compile_template
from esb_workers.expressions.topics import is_message_type
from esb_workers.listening import incoming as reading
from esb_workers.listening.incoming import Incoming
from esb_workers.registry.catalogue import Judgement
from esb_workers.store.ids import new_id
from esb_workers.transport.brokers.address import AMQP, REDIS, Address, parse
from esb_workers.transport.errors import RequestRefused

#: What a mapping may say; each is a template.
FIELDS: Final = ("messageType", "payload", "headers", "correlationId", "messageId", "orderingKey", "source")
_LONGEST: Final = {"correlationId": 200, "messageId": 200, "orderingKey": 255, "source": 1024}
_VISIBLE: Final = frozenset({"correlationId", "messageId"})

#: What the catalogue makes of a type and a payload. Raises Invalid.
Judge = Callable[[str, Any], Judgement]


def check_url(url: str) -> None:
    """Raises ValueError unless `url` is a queue that can be consumed."""
    try:
        address = parse(url)
    except RequestRefused as error:
        raise ValueError(error.detail) from None
    if address.scheme not in (*AMQP, *REDIS):
        raise ValueError("must start with amqp://, amqps://, redis:// or rediss://: no other broker is listened to")
    if address.queue is None:
        raise ValueError("must name a queue: an exchange is listened to by a queue that is bound to it")


def compile_mapping(mapping: Mapping[str, Any]) -> dict[str, Template]:
    """The templates of a mapping. Raises Invalid naming each fault."""
    faults: list[FieldError] = []
    found: dict[str, Template] = {}
    for name, value in mapping.items():
        if value is None:
            continue
        try:
            found[name] = compile_template(value, f"mapping.{name}")
            if found[name].looks_up:
                faults.append(
                    FieldError(f"mapping.{name}", "cannot look into lookup tables: a route's expressions can")
                )
        except Invalid as error:
            faults += error.errors
    if faults:
        raise Invalid(faults)
    return found


@dataclass(frozen=True, slots=True)
class Listener:
    """A listener as a consumer needs it."""

    id: str
    name: str
    etag: int
    address: Address
    processes: int
    prefetch: int
    mapping: Mapping[str, Template]

    def message(self, incoming: Incoming, max_bytes: int, judge: Judge) -> NewMessage:
        """The message for the bus. Raises Invalid, Malformed or ExpressionError for what cannot become one."""
        queue = self.address.queue or ""
        fields = reading.as_message(incoming, queue, self.name)
        if self.mapping:
            fields = self._mapped(incoming, fields, queue)
        return _new_message(fields, self.id, max_bytes, judge)

    def _mapped(self, incoming: Incoming, fields: dict[str, Any], queue: str) -> dict[str, Any]:
        names = {
            "body": fields["payload"],
            "headers": reading.texts(incoming.headers),
            "properties": _plain(incoming.properties),
            "queue": queue,
            "message": {"messageType": None, "correlationId": None, "messageId": None} | fields,
        }
        faults: list[FieldError] = []
        mapped = dict(fields)
        for name, template in self.mapping.items():
            try:
                mapped[name] = template.render(names)
            except ExpressionError as error:
                faults.append(FieldError(f"mapping.{name}", error.detail))
        if faults:
            raise Invalid(faults, code="mapping_failed")
        return mapped


def _plain(properties: Mapping[str, Any]) -> dict[str, Any]:
    """Properties as CEL can look at them, by their names in camelCase as well."""
    found: dict[str, Any] = {}
    for name, value in properties.items():
        if isinstance(value, str | int | float | bool):
            first, *rest = name.split("_")
            found[name] = value
            found[first + "".join(part.capitalize() for part in rest)] = value
    return found


def _new_message(fields: Mapping[str, Any], listener_id: str, max_bytes: int, judge: Judge) -> NewMessage:
    faults: list[FieldError] = []
    texts = {name: _text(fields.get(name), name, faults) for name in (*_LONGEST, "messageType")}
    if texts["messageType"] is None:
        faults.append(FieldError("messageType", "is not said by the message, and the mapping gives none"))
    elif not is_message_type(texts["messageType"]):
        faults.append(FieldError("messageType", f"{texts['messageType'][:100]!r} is not words parted by dots"))
    headers = _headers(fields.get("headers"), faults)
    payload = _payload(fields.get("payload"), max_bytes, faults)
    expires_at = _expiry(fields.get("expiresAt"), faults)
    if faults:
        raise Invalid(faults)
    judged = judge(texts["messageType"] or "", fields.get("payload"))
    source = texts["source"] or f"/listeners/{listener_id}"
    return NewMessage(
        source=source,
        message_type=texts["messageType"] or "",
        correlation_id=texts["correlationId"] or new_id(),
        headers=headers,
        payload=payload,
        message_id=texts["messageId"],
        # As CloudEvents are known: by source and id. A source may be too long for an index.
        scope=f"listener:{listener_id}:{hashlib.sha256(source.encode()).hexdigest()[:32]}"
        if texts["messageId"] is not None
        else None,
        ordering_key=texts["orderingKey"],
        expires_at=expires_at,
        traceparent=fields.get("traceparent"),
        judged=judged.revision,
        warning=judged.warning,
    )


def _text(value: Any, name: str, faults: list[FieldError]) -> str | None:
    if value is None or value == "":
        return None
    if isinstance(value, int | float) and not isinstance(value, bool):
        value = str(value)
    longest = _LONGEST.get(name, 255)
    if not isinstance(value, str) or len(value) > longest or "\0" in value or not value.isprintable():
        faults.append(FieldError(name, f"must be a text of 1 to {longest} printable characters"))
        return None
    if name in _VISIBLE and not (value.isascii() and " " not in value):
        faults.append(FieldError(name, "must be visible ASCII characters"))
        return None
    return value


def _expiry(value: Any, faults: list[FieldError]) -> datetime | None:
    """An event's `expirytime`. One that has passed is no fault: the event was good when sent, and ends expired."""
    if value is None:
        return None
    try:
        return from_wire(value)
    except ValueError as error:
        faults.append(FieldError("expirytime", str(error)))
        return None


def _headers(value: Any, faults: list[FieldError]) -> str:
    if value is None:
        return "{}"
    if not isinstance(value, dict):
        faults.append(FieldError("headers", "must be an object"))
        return "{}"
    wrong = [name for name, text in value.items() if not isinstance(text, str | int | float | None)]
    faults.extend(FieldError(f"headers.{name}", "must be a text") for name in wrong)
    plain = reading.texts({name: text for name, text in value.items() if text is not None})
    return orjson.dumps(plain).decode() if plain else "{}"


def _payload(value: Any, max_bytes: int, faults: list[FieldError]) -> str:
    try:
        text = orjson.dumps(value)
    except (TypeError, ValueError) as error:
        faults.append(FieldError("payload", f"is not JSON that can be kept: {error}"))
        return "null"
    if len(text) > max_bytes:
        faults.append(FieldError("payload", f"has {len(text)} bytes; {max_bytes} are taken"))
    if b"\\u0000" in text:
        faults.append(FieldError("payload", "must not hold U+0000"))
    return text.decode()
