"""Messages that no route took: sent again once one does."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Final

from flask import Response

from esb_api.answers import answer
from esb_api.call import Call
from esb_api.operations import Resource
from esb_api.principals import Access
from esb_api.schemas.unroutable import (
    ReplayedMessage,
    UnroutableFilterBody,
    UnroutableReplayAnswer,
    UnroutableReplayBody,
)
from esb_workers.expressions.functions import bound
from esb_workers.routing.book import Book
from esb_workers.routing.messages import as_json
from esb_workers.store import messages, revision
from esb_workers.store import unroutable as store
from esb_workers.store.unroutable import UnroutableFilter

unroutable = Resource("unroutable")

#: Messages looked at, and sent, in one transaction.
CHUNK: Final = 100


@unroutable.operation(
    "POST", "/routing/unroutable/replay", access=Access.OPERATOR, body=UnroutableReplayBody, body_optional=True,
    answers={200: UnroutableReplayAnswer, 202: UnroutableReplayAnswer},
)  # fmt: skip
def replay_unroutable(call: Call, body: UnroutableReplayBody) -> Response:
    """Send messages that no route took again: those that a route takes now, each once, as new messages with `replayOf`.

    They are listed by `GET /routing/logs?status=unroutable`. With `dryRun`, 200 and what would be sent.
    """
    wanted = _filter(body.filter)
    items: list[ReplayedMessage] = []
    looked_at, more = 0, False
    for ids in _chunks(call, wanted, body.limit):
        if looked_at == body.limit:
            more = True
            break
        looked_at += len(ids)
        takers = _takers(call, ids)
        chosen = [id_ for id_, (_, routes) in takers.items() if routes]
        sent = (
            dict.fromkeys(chosen)
            if body.dry_run
            else dict(call.api.bus.replay_unroutable(chosen, by=call.principal.actor))
        )
        items += [
            ReplayedMessage(replay_of=old, message_id=new, message_type=takers[old][0], routes=takers[old][1])
            for old, new in sent.items()
        ]
    shown = UnroutableReplayAnswer(looked_at=looked_at, matched=len(items), more=more, items=items)
    return answer(shown, 200 if body.dry_run else 202)


def _chunks(call: Call, wanted: UnroutableFilter, limit: int) -> Iterator[list[str]]:
    """Ids, oldest first, in chunks that end at `limit`, and one that only tells that there are more."""
    after: str | None = None
    left = limit
    while True:
        with call.api.database.cursor() as cursor:
            ids = store.page(cursor, min(CHUNK, left or 1), after, wanted)
        if not ids:
            return
        yield ids
        after, left = ids[-1], left - len(ids)


def _takers(call: Call, ids: Sequence[str]) -> dict[str, tuple[str, list[str]]]:
    """Type, and names of the routes that take it now, of each message, oldest first."""
    with call.api.database.cursor() as cursor:
        rev = revision.current(cursor)
        found = messages.load(cursor, ids)
    book = Book(call.api.database)
    table, now = book.at(rev), datetime.now(UTC)
    with bound(book.host):
        return {
            id_: (found[id_].type, [match.route.name for match in table.match(as_json(found[id_]), now)])
            for id_ in ids
            if id_ in found and found[id_].payload is not None
        }


def _filter(body: UnroutableFilterBody) -> UnroutableFilter:
    return UnroutableFilter(
        message_ids=_listed(body.message_id), types=_listed(body.message_type), sources=_listed(body.source),
        clients=_listed(body.client_id), since=body.from_, until=body.to,
    )  # fmt: skip


def _listed(value: str | list[str] | None) -> list[str] | None:
    return [value] if isinstance(value, str) else value
