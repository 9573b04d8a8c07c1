"""The request of a delivery: a CloudEvent, signed, with the headers that make repeats harmless. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Final, NamedTuple

from esb_workers.clock import to_wire
from esb_workers.delivery.plan import Plan
from esb_workers.delivery.prepare import Prepared
from esb_workers.registry.instances import Instance
from esb_workers.store.messages import StoredMessage
from esb_workers.transport import cloudevents, signing
from esb_workers.transport.adapter import PreparedRequest
from esb_workers.transport.cloudevents import OutgoingEvent
from esb_workers.transport.letterhead import Letter, Letterhead, slot

USER_AGENT = "python-esb"
#: What a service's own headers cannot replace: the id and the signature over it.
_SEALED = frozenset({"webhook-id", "webhook-timestamp", "webhook-signature", "idempotency-key"})

#: What a message's headers may replace: it says nothing that the bus promises.
_YIELDING = frozenset({"user-agent"})


def build(prepared: Prepared, message: StoredMessage, payload: str, instance: Instance, now: float) -> PreparedRequest:
    """The request for one attempt at `now` (seconds since the epoch). Raises ExpressionError for a bad path."""
    check = (prepared.claim.cursor or {}).get("check")
    data = payload if check is None else json.dumps({"dataref": check["url"], "bytes": check["bytes"]})
    said = _said(prepared, message, message.source)
    dataref = _dataref(prepared.headers) if check is None else check["url"]
    content, body = cloudevents.encode(_event(said, data, dataref), instance.format)
    signed = signing.headers(instance.keys(now), said.delivery_id, int(now), body)
    request = PreparedRequest()
    request.method = prepared.plan.method or instance.method
    request.url = instance.url(_path(prepared, message, payload, instance))
    merged = _merged([*content, *signed, *_beside_the_event(said)], prepared.headers, instance)
    request.headers = merged  # type: ignore[assignment]  # the caller reads any mapping
    request.body = body
    return request


def letter(prepared: Prepared, message: StoredMessage, payload: str, instance: Instance, now: float) -> Letter | None:
    """The same over HTTP, ready to be sent, at a third of the cost; None for what only `build` does.

    That is: attributes in the body, a payload that is elsewhere, a path that is computed, and what is not plain.
    """
    path = prepared.plan.path
    elsewhere = (prepared.claim.cursor or {}).get("check") is not None
    if elsewhere or not payload or instance.format == "structured" or (path is not None and not path.is_static):
        return None
    said = _said(prepared, message, cloudevents.uri_header(message.source))
    passing: Iterable[str] = prepared.headers.values()
    as_they_are = (said.id, said.type, said.correlation_id, said.trace, said.partition_key or "")
    if not cloudevents.is_plain("".join([*as_they_are, *passing])):
        if not cloudevents.is_plain("".join(as_they_are)):
            return None
        passing = map(cloudevents.encode_value, passing)
    names = tuple(prepared.headers)
    letterhead = _letterhead(instance, prepared.plan, names, bool(said.partition_key), said.expiry is not None)
    if letterhead is None:
        return None
    body, at = payload.encode(), int(now)
    signature = signing.sign(instance.keys(now), said.delivery_id, at, body)
    return letterhead.letter((*said, str(at), signature, *passing), body)


class _Said(NamedTuple):
    """What every request says anew; the rest of its head is the same for message after message."""

    id: str
    source: str
    type: str
    time: str
    correlation_id: str
    partition_key: str | None
    expiry: str | None
    trace: str
    delivery_id: str


#: Where each of them goes in a letterhead, then the time-stamp and the signature, then what is passed on.
_SLOTS: Final = _Said(*map(slot, range(len(_Said._fields))))
_AT, _SIGNATURE, _PASSING = slot(len(_SLOTS)), slot(len(_SLOTS) + 1), len(_SLOTS) + 2


@lru_cache(maxsize=4096)  # where more than these take turns, each request makes its own, which costs thrice as much
def _letterhead(
    instance: Instance, plan: Plan, passing: tuple[str, ...], has_partition: bool, has_expiry: bool
) -> Letterhead | None:
    """For messages with headers of these names. None if one of them goes its own way. Raises RequestRefused."""
    headers = {name: slot(number) for number, name in enumerate(passing, _PASSING)}
    if _dataref(headers) is not None:
        return None
    said = _SLOTS._replace(
        partition_key=_SLOTS.partition_key if has_partition else None, expiry=_SLOTS.expiry if has_expiry else None
    )
    content, _ = cloudevents.encode(_event(said, "", None), instance.format)
    signed = signing.named(said.delivery_id, _AT, _SIGNATURE)
    merged = _merged([*content, *signed, *_beside_the_event(said)], headers, instance)
    path = instance.path if plan.path is None else plan.path.render_text({})
    return Letterhead(plan.method or instance.method, instance.url(path), merged.items())


def _said(prepared: Prepared, message: StoredMessage, source: str) -> _Said:
    delivery_id = prepared.claim.id
    return _Said(
        _event_id(prepared, message),
        source,
        message.type,
        _when(message.created_at) or "",
        message.correlation_id,
        message.ordering_key,
        None if message.expires_at is None else to_wire(message.expires_at),
        message.traceparent or traceparent(message.id, delivery_id),
        delivery_id,
    )


def _event(said: _Said, data: str, dataref: str | None) -> OutgoingEvent:
    # Extensions say what the bus knows of a message.
    known = {"partitionkey": said.partition_key, "expirytime": said.expiry, "traceparent": said.trace}
    return OutgoingEvent(
        id=said.id,
        source=said.source,
        type=said.type,
        time=said.time,
        correlation_id=said.correlation_id,
        data=data,
        extensions={name: value for name, value in known.items() if value},
        dataref=dataref,
    )


def _beside_the_event(said: _Said) -> cloudevents.Pairs:
    return [
        ("Idempotency-Key", said.delivery_id),
        ("X-Correlation-ID", said.correlation_id),  # visible characters alone, so as it came in
        ("traceparent", said.trace),
        ("User-Agent", USER_AGENT),
    ]


#: What was accepted together, as a batch is, was accepted at the same moment.
_when = lru_cache(maxsize=64)(to_wire)


def _event_id(prepared: Prepared, message: StoredMessage) -> str:
    """The caller's own id of the message, else ours; of a part of a split message, with its index."""
    base, cursor = message.external_id or message.id, prepared.claim.cursor
    return f"{base}-{cursor['index']}" if cursor and cursor.get("index") is not None else base


def _dataref(headers: Mapping[str, str]) -> str | None:
    """Where the sender says that the payload lies: an event's attribute is a header of the message."""
    return next((text for name, text in headers.items() if name.lower() == "dataref" and text), None)


def traceparent(message_id: str, delivery_id: str) -> str:
    """A W3C trace context made of our ids, for messages that came without one."""
    return f"00-{message_id.replace('-', '')}-{delivery_id.replace('-', '')[16:]}-01"


def _merged(ours: cloudevents.Pairs, passing: Mapping[str, str], instance: Instance) -> dict[str, str]:
    """Ours, then what the message passes on, all but the sealed ones replaced by the service's own."""
    if not instance.headers and not passing:
        return dict(ours)
    names = tuple([name for name, _ in ours])
    beside = _beside(names, tuple(passing.items()), instance.headers)
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
