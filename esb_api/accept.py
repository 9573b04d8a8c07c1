"""The hot path: from a request that sends a message to the answer that it is stored.

`read` → `admit` → quota → one statement of the bus → 202. Nothing here looks at routes or services: what a
message meets is decided when it is routed.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple

import orjson
from flask import Response
from pydantic import TypeAdapter, ValidationError

from esb_api import message_view
from esb_api.admission import Places, check_grant, places_of
from esb_api.answers import answer
from esb_api.call import Call
from esb_api.idempotency import Reply, check_current, once
from esb_api.problems import problem
from esb_api.schemas.messages import MessageBody
from esb_api.validation import validated
from esb_api.waiting import wanted_wait
from esb_workers.bus import OPERATOR, NewMessage
from esb_workers.errors import Conflict, EsbError, FieldError, Invalid, TooLarge
from esb_workers.registry.catalogue import Judgement
from esb_workers.store import message_log, messages
from esb_workers.store.engine import Cursor
from esb_workers.store.messages import Accepted

#: Messages in one request.
MAX_BATCH: Final = 1000
#: Pauses between looks at a message that is waited for, seconds: short ones first, most are delivered at once.
_FIRST_LOOK, _LONGEST_PAUSE = 0.005, 0.1


class Incoming(NamedTuple):
    """A message as a caller sent it. `event_source` sets CloudEvents apart: they are known by source and id."""

    body: MessageBody
    event_source: str | None = None
    traceparent: str | None = None  # the event's own: where it began, whoever hands it on


#: Reads one message out of a request. Raises Invalid.
Read = Callable[[], Incoming]
#: A message of a batch, or what is wrong with it.
Each = Incoming | Invalid
_ALL: Final = TypeAdapter(list[MessageBody])


# --- one message -----------------------------------------------------------------------------------------


def accept_one(call: Call, asked: bytes, read: Read) -> Response:
    """Store one message and answer 202, or what became of it if the caller prefers to wait."""
    with places_of(call) as places:
        reply = once(call, asked, lambda cursor: _accept_one(call, cursor, places, read))
    if reply.status == 202:
        # Settled by the body that was stored first, for a repeat as well.
        stored = orjson.loads(reply.body)
        call.correlation_id = stored["correlationId"]
        seconds = wanted_wait(call.environ.get("HTTP_PREFER"))
        if seconds is not None:
            waited = _await(call, stored["id"], seconds)
            if waited is not None:
                return reply.marked(waited)
    return reply.response()


def _accept_one(call: Call, cursor: Cursor | None, places: Places, read: Read) -> Reply:
    new = new_message(call, read())
    places.take(1)
    bus, sender = call.api.bus, call.principal
    if cursor is None:
        outcome = bus.send(new, sender.client, sender.known)
    else:
        bus.route(new, sender.client)
        (outcome,) = bus.publish_in(cursor, [new], sender.known)
    if outcome.outcome == "conflict":
        raise _taken(new)
    body = {
        "id": outcome.id,
        "messageId": new.message_id or outcome.id,
        "correlationId": new.correlation_id,
        "status": "accepted",
    }
    if outcome.outcome == "duplicate":
        places.give_back()
        body["correlationId"] = correlation_of(call, [outcome.id])[outcome.id]
    return Reply(202, orjson.dumps(body), _after(call, cursor, [new], [outcome]))


def _publish(call: Call, cursor: Cursor | None, new: Sequence[NewMessage]) -> list[Accepted]:
    bus, known = call.api.bus, call.principal.known
    return bus.publish(new, known) if cursor is None else bus.publish_in(cursor, new, known)


def _after(
    call: Call, cursor: Cursor | None, new: Sequence[NewMessage], outcomes: Sequence[Accepted]
) -> Callable[[], None]:
    # `publish` has done it; `publish_in` leaves it to whoever commits.
    return (lambda: None) if cursor is None else lambda: call.api.bus.committed(new, outcomes)


def _taken(new: NewMessage) -> Conflict:
    return Conflict(f"The id {new.message_id} belongs to another message.", code="message_id_conflict")


def correlation_of(call: Call, ids: Sequence[str]) -> dict[str, str]:
    """The correlation ids of stored messages, by message id."""
    with call.api.database.cursor() as cursor:
        return {id_: stored.correlation_id for id_, stored in messages.load(cursor, ids).items()}


def new_message(call: Call, incoming: Incoming) -> NewMessage:
    """The message for the bus, if its sender may send it and it fits its type's schema.

    Raises Invalid, Forbidden, TooLarge.
    """
    body = incoming.body
    if body.expires_at is not None and body.expires_at <= datetime.now(UTC):
        raise Invalid([FieldError("expiresAt", "must lie in the future")])
    payload = orjson.dumps(body.payload).decode()
    check_grant(call.principal.client, body.message_type, payload)
    judged = _judged(call, incoming)
    client_id = call.principal.client_id
    owner = client_id or OPERATOR
    return NewMessage(
        source=body.source,
        message_type=body.message_type,
        correlation_id=body.correlation_id or call.correlation_id,
        own_correlation_id=body.correlation_id,
        headers=orjson.dumps(body.headers).decode() if body.headers else "{}",
        payload=payload,
        client_id=client_id,
        message_id=body.message_id,
        scope=f"{owner}:message" if incoming.event_source is None else f"{owner}:event:{incoming.event_source}",
        ordering_key=body.ordering_key,
        priority=body.priority,
        deliver_at=body.deliver_at,
        expires_at=body.expires_at,
        reply_to=body.reply_to,
        traceparent=incoming.traceparent or call.traceparent,
        judged=judged.revision,
        warning=judged.warning,
    )


def _judged(call: Call, incoming: Incoming) -> Judgement:
    body = incoming.body
    try:
        path = "payload" if incoming.event_source is None else "data"
        return call.api.catalogue.judge(body.message_type, body.payload, path)
    except Invalid:
        call.api.metrics.refuse_payload(body.message_type)
        raise


def _await(call: Call, message_id: str, seconds: int) -> Response | None:
    """The message once it has come to its end; None if it does not in time, or too many are waiting."""
    with call.api.waiting.place() as placed:
        if not placed or not _ends_within(call, message_id, seconds):
            return None
    with call.api.database.cursor() as cursor:
        row = message_log.get(cursor, message_id)
        acts = message_log.acts(cursor, message_id)
    if row is None:
        return None
    return answer(message_view.message(row, acts), Preference_Applied=f"wait={seconds}")


def _ends_within(call: Call, message_id: str, seconds: int) -> bool:
    deadline = time.monotonic() + seconds
    pause = _FIRST_LOOK
    while True:
        with call.api.database.cursor() as cursor:
            if message_log.status(cursor, message_id) in message_log.FINAL:
                return True
        left = deadline - time.monotonic()
        if left <= 0:
            return False
        time.sleep(min(pause, left))
        pause = min(pause * 1.5, _LONGEST_PAUSE)


# --- many ------------------------------------------------------------------------------------------------


def check_count(count: int) -> None:
    """Raises TooLarge."""
    if count > MAX_BATCH:
        raise TooLarge(
            f"A request takes at most {MAX_BATCH} messages, not {count}.", code="batch_too_large", limit=MAX_BATCH
        )


def accept_many(call: Call, asked: bytes, read_all: Callable[[], Sequence[Each]]) -> Response:
    """Store those messages that are good, in one transaction, and say of each what became of it."""
    with places_of(call) as places:
        reply = once(call, asked, lambda cursor: _accept_many(call, cursor, places, read_all()))
    return reply.response()


def _accept_many(call: Call, cursor: Cursor | None, places: Places, batch: Sequence[Each]) -> Reply:
    found = [_admitted(call, each) for each in batch]
    good = [new for new in found if isinstance(new, NewMessage)]
    if len(good) < len(found):
        check_current(call)
    places.take(len(good))
    outcomes = _publish(call, cursor, good) if good else []
    each = iter(outcomes)
    results = [(new, next(each)) if isinstance(new, NewMessage) else new for new in found]
    stored = [result for result in results if isinstance(result, tuple)]
    repeats = [outcome.id for _, outcome in stored if outcome.outcome == "duplicate"]
    unused = sum(outcome.outcome != "accepted" for _, outcome in stored)
    if unused:
        places.give_back(unused)
    first = correlation_of(call, repeats) if repeats else {}
    items = [_item(index, result, first) for index, result in enumerate(results)]
    return Reply(202, orjson.dumps({"items": items}, default=str), _after(call, cursor, good, outcomes))


def _admitted(call: Call, each: Each) -> NewMessage | EsbError:
    if isinstance(each, Invalid):
        return each
    try:
        return new_message(call, each)  # not routed here: its sender would wait a thousand times, and the pool does it
    except EsbError as error:
        return error


def _item(index: int, result: tuple[NewMessage, Accepted] | EsbError, first: dict[str, str]) -> dict[str, Any]:
    if not isinstance(result, tuple):
        return {"index": index, "error": problem(result)}
    new, outcome = result
    if outcome.outcome == "conflict":
        return {"index": index, "error": problem(_taken(new))}
    return {
        "index": index,
        "id": outcome.id,
        "messageId": new.message_id or outcome.id,
        "correlationId": first.get(outcome.id, new.correlation_id),
    }


def read_body(value: Any) -> Read:
    """Reads a message out of parsed JSON."""
    return lambda: Incoming(validated(MessageBody, value))


def read_bodies(values: list[Any]) -> list[Each]:
    """Reads a batch out of parsed JSON: all at once, or one by one if one is wrong."""
    try:
        return [Incoming(body) for body in _ALL.validate_python(values)]
    except ValidationError:
        return [read_each(read_body(value)) for value in values]


def read_each(read: Read) -> Each:
    """What `read` reads, or what is wrong with it."""
    try:
        return read()
    except Invalid as error:
        return error
