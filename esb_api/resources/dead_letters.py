"""Dead letters, and their replay."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any, Final
from uuid import UUID

from flask import Response

from esb_api import message_view
from esb_api.answers import answer
from esb_api.call import Call
from esb_api.operations import Resource
from esb_api.pages import cursor_id, decode_cursor, page
from esb_api.params import PageQuery
from esb_api.principals import Access
from esb_api.schemas.dead_letters import (
    DeadLetterAnswer,
    DeadLetterDetail,
    DeadLetterFilterBody,
    DeadLetterPage,
    DeadLetterQuery,
    DryReplayAnswer,
    ReplayAnswer,
    ReplayBody,
    ReplayPage,
    StartedReplayAnswer,
)
from esb_workers.errors import FieldError, IllegalTransition, Invalid, NotFound
from esb_workers.store import message_log, messages, replays
from esb_workers.store.replays import DeadLetter, DeadLetterFilter, ReplayRow

dead_letters = Resource("dead-letters")

#: Dead letters that a dry run shows.
SAMPLE: Final = 10
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


@dead_letters.operation(
    "GET", "/routing/dead-letters", access=Access.OPERATOR, query=DeadLetterQuery, answers={200: DeadLetterPage}
)
def list_dead_letters(call: Call, query: DeadLetterQuery) -> Response:
    """List deliveries that were given up, newest first."""
    after = decode_cursor(query.cursor, int, UUID)
    wanted = DeadLetterFilter(
        ids=query.ids, message_ids=query.message_id, destinations=query.destination, routes=query.route,
        classes=query.error_class, clients=query.client_id, since=query.from_, until=query.to,
    )  # fmt: skip
    with call.api.database.cursor() as cursor:
        rows = replays.page(cursor, query.limit, after and (after[0], after[1]), wanted)
    return answer(DeadLetterPage(**page(rows, query.limit, _letter, _place)))


@dead_letters.operation(
    "POST", "/routing/dead-letters/replay", access=Access.OPERATOR, body=ReplayBody,
    answers={200: DryReplayAnswer, 202: StartedReplayAnswer},
)  # fmt: skip
def replay_dead_letters(call: Call, body: ReplayBody) -> Response:
    """Send dead letters again, under their own ids and with a fresh budget.

    At least one filter must be given. With `dryRun`, 200 and what it would take; nothing is sent.
    """
    wanted = _filter(body.filter)
    if wanted.is_empty():
        raise Invalid([FieldError("filter", "must name at least one field: an empty filter would take everything")])
    if body.dry_run:
        with call.api.database.cursor() as cursor:
            matched = replays.count(cursor, wanted)
            rows = replays.page(cursor, SAMPLE, None, wanted)[:SAMPLE]
        return answer(DryReplayAnswer(matched=matched, sample=[_letter(row) for row in rows if not row.redacted]))
    shown = body.filter.model_dump_json(by_alias=True, exclude_none=True)
    replay_id, matched = call.api.bus.replay_dead_letters(wanted, shown, body.rate_per_second, by=call.principal.actor)
    started = StartedReplayAnswer(replay_id=replay_id, matched=matched)
    return answer(started, 202, Location=f"/routing/dead-letters/replays/{replay_id}")


@dead_letters.operation("GET", "/routing/dead-letters/{id}", access=Access.OPERATOR, answers={200: DeadLetterDetail})
def read_dead_letter(call: Call, delivery_id: str) -> Response:
    """Read a dead letter: the original message, what transformations made of it, and every attempt."""
    with call.api.database.cursor() as cursor:
        letter = replays.letter(cursor, delivery_id)
        message = message_log.get(cursor, letter.message_id) if letter else None
        forms = messages.forms(cursor, [delivery_id])
    if letter is None or message is None:
        raise NotFound
    shown = message_view.logged_message(message)
    delivery = next(found for found in shown["deliveries"] if found["id"] == letter.delivery_id)
    original = {"payload": shown["payload"], "headers": shown["headers"]}
    made = [] if letter.redacted else message_view.forms(letter.cursor, letter.lane, forms.get(delivery_id))
    plain = _letter(letter).model_dump(by_alias=True, mode="json")
    return answer(plain | {"original": original, "forms": made, "delivery": delivery})


@dead_letters.operation(
    "GET", "/routing/dead-letters/replays", access=Access.OPERATOR, query=PageQuery, answers={200: ReplayPage}
)
def list_replays(call: Call, query: PageQuery) -> Response:
    """List replays, newest first."""
    with call.api.database.cursor() as cursor:
        rows = replays.listed(cursor, query.limit, cursor_id(query.cursor))
    return answer(ReplayPage(**page(rows, query.limit, _replay, lambda row: row.id)))


@dead_letters.operation(
    "GET", "/routing/dead-letters/replays/{id}", access=Access.OPERATOR, answers={200: ReplayAnswer}
)
def read_replay(call: Call, replay_id: str) -> Response:
    """Read how far a replay has come."""
    return answer(_replay(_read(call, replay_id)))


@dead_letters.operation(
    "POST", "/routing/dead-letters/replays/{id}/cancel", access=Access.OPERATOR, answers={200: ReplayAnswer},
    refusals=(409,),
)  # fmt: skip
def cancel_replay(call: Call, replay_id: str) -> Response:
    """Send no more of a replay; what is sent stays sent."""
    _read(call, replay_id)
    with call.api.database.cursor() as cursor:
        if not replays.cancel(cursor, replay_id):
            raise IllegalTransition("Nothing of this replay is left to be sent.")
    return answer(_replay(_read(call, replay_id)))


def _filter(body: DeadLetterFilterBody) -> DeadLetterFilter:
    return DeadLetterFilter(
        ids=body.ids, message_ids=_listed(body.message_id), destinations=_listed(body.destination),
        routes=_listed(body.route), classes=_listed(body.error_class), clients=_listed(body.client_id),
        since=body.from_, until=body.to,
    )  # fmt: skip


def _listed(value: str | list[str] | None) -> list[str] | None:
    return [value] if isinstance(value, str) else value


def _read(call: Call, replay_id: str) -> ReplayRow:
    with call.api.database.cursor() as cursor:
        row = replays.get(cursor, replay_id)
    if row is None:
        raise NotFound
    return row


def _replay(row: ReplayRow) -> ReplayAnswer:
    # In the store a replay is through once all is sent; whoever asks wants to know how it ended.
    status: Any = "running" if row.status == "completed" and row.open else row.status
    return ReplayAnswer(
        id=row.id, status=status, filter=row.filter, matched=row.matched, sent=row.sent, delivered=row.delivered,
        failed=row.failed, rate_per_second=row.rate, created_at=row.created_at, finished_at=row.finished_at,
    )  # fmt: skip


def _letter(row: DeadLetter) -> DeadLetterAnswer:
    tried = row.last is not None and "number" in row.last
    last = message_view.attempt(message_view.last_attempt(row.last or {}, "dead"), row.attempts or 1) if tried else None
    return DeadLetterAnswer(
        id=row.delivery_id, delivery_id=row.delivery_id, message_id=row.external_id or row.message_id,
        message_type=row.message_type, source=row.source, correlation_id=row.correlation_id, client_id=row.client_id,
        destination=message_view.destination_of(row.cursor, row.lane), route=row.route, route_id=row.route_id,
        error_class=row.error_class, attempts=row.attempts or 0, last_attempt=last, redacted=row.redacted,
        created_at=row.at,
    )  # fmt: skip


def _place(row: DeadLetter) -> tuple[int, str]:
    return (row.at - _EPOCH) // timedelta(microseconds=1), row.delivery_id
