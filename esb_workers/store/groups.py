"""Groups: what waits for others of its kind, to be collected or put in order. See functions/57_gather.sql."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from esb_workers.store import jobs
from esb_workers.store.engine import Cursor, Database
from esb_workers.store.jobs import Done
from esb_workers.store.json import dumps


class Member(NamedTuple):
    """What a group has gathered, with what is needed of its message. Payload and headers are JSON text."""

    id: str
    message_id: str
    cursor: dict[str, Any]
    age_ms: int
    payload: str
    headers: str
    client_id: str | None
    source: str
    type: str
    correlation_id: str
    priority: int
    expires_at: Any
    reply_to: str | None
    traceparent: str | None
    more: bool  # the group has others that were too many, or too large, to be loaded


def routed(
    database: Database,
    worker: int,
    results: Sequence[Mapping[str, Any]],
    gathered: Mapping[str, Sequence[Mapping[str, Any]]],
) -> Done:
    """Record what routing made of messages, and put into groups what it `gathered`, by message, in one transaction."""
    with database.raw_transaction() as cursor:
        done = jobs.routed(cursor, worker, results)
        rows = [row for id_ in done.ids for row in gathered.get(id_, ())]
        if rows:
            cursor.execute("select esb_gather(%s::jsonb)", (dumps(rows),))
    return done._replace(timers=True)


def members(cursor: Cursor, group: str, limit: int, limit_bytes: int) -> list[Member]:
    """What a group holds, oldest message first; at least one if there is any."""
    cursor.execute("select * from esb_gathered(%s, %s, %s)", (group, limit, limit_bytes))
    return [Member(*row) for row in cursor.fetchall()]


def release(cursor: Cursor, worker: int, decision: Mapping[str, Any]) -> Done:
    """Record what the holder of a group has decided; see esb_release for its fields."""
    cursor.execute("select * from esb_release(%s, %s::jsonb)", (worker, dumps(decision)))
    return jobs.done_of(cursor)._replace(timers=True)
