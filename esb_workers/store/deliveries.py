"""Deliveries: what became of attempts, and what hangs on it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from esb_workers.store import instances, jobs
from esb_workers.store.engine import Cursor, Database
from esb_workers.store.ids import new_id
from esb_workers.store.jobs import Done


class Reply(NamedTuple):
    """A message made of an answer, for the service that the answered message (`message_id`) names."""

    service: str
    source: str
    message_type: str
    payload: str
    message_id: str


def record(
    database: Database,
    worker: int,
    rows: Sequence[Mapping[str, Any]],
    *,
    disables: Mapping[str, str],
    replies: Mapping[str, Reply],
) -> Done:
    """Record attempts. For those still ours, in the same transaction: disable instances, send replies."""
    if not disables and not replies:
        with database.cursor() as cursor:
            return jobs.done(cursor, worker, rows)
    with database.raw_transaction() as cursor:
        # Services before jobs, as in deregistering, and in order: nobody waits in a circle.
        instances.lock(cursor, sorted(set(disables.values())))
        done = jobs.done(cursor, worker, rows)
        ours = set(done.ids)
        for service_id in sorted({service for delivery, service in disables.items() if delivery in ours}):
            instances.disable(cursor, service_id)
        for delivery in sorted(ours & replies.keys()):
            reply(cursor, replies[delivery])
    return done


def reply(cursor: Cursor, answer: Reply) -> bool:
    """Send a reply to its service; False if the message has been replied to already."""
    cursor.execute(
        "select esb_reply(%s, %s, %s, %s, %s, %s, %s)",
        (
            answer.message_id,
            new_id(),
            new_id(),
            answer.service,
            answer.source,
            answer.message_type,
            answer.payload,
        ),
    )
    return bool(cursor.fetchone()[0])  # type: ignore[index]
