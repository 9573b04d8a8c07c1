"""Acts on many runs at once: which, and how far they have come."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final, NamedTuple

from esb_workers.store import runs
from esb_workers.store.engine import Cursor
from esb_workers.store.runs import RunRow

#: The statuses in which each act is allowed.
ALLOWED: Final[Mapping[str, frozenset[str]]] = {
    "cancel": frozenset({"pending", "running", "waiting", "paused"}),
    "pause": frozenset({"pending", "running", "waiting"}),
    "resume": frozenset({"paused"}),
    "retry": frozenset({"failed", "timed_out"}),
}


class BulkRow(NamedTuple):
    """An act on many, and how far it has come. `refused`: runs that had changed meanwhile."""

    id: str
    action: str
    reason: str | None
    compensate: bool
    filter: dict[str, Any]
    status: str
    matched: int
    done: int
    refused: int
    created_at: datetime
    finished_at: datetime | None


def statuses(action: str, wanted: Sequence[str] | None) -> list[str]:
    """The statuses of the runs that an act takes, of those that are wanted."""
    return sorted(ALLOWED[action] if wanted is None else ALLOWED[action] & set(wanted))


def count(cursor: Cursor, filters: Mapping[str, Any], wanted: Sequence[str]) -> int:
    """How many runs an act would take."""
    query, values = runs.matching(filters, wanted)
    cursor.execute(f"select count(*) from ({query}) y", values)
    return int(cursor.fetchone()[0])  # type: ignore[index]


def sample(cursor: Cursor, filters: Mapping[str, Any], wanted: Sequence[str], limit: int) -> list[RunRow]:
    """The newest of them."""
    return runs.page(cursor, limit, None, {**filters, "status": list(wanted)})[:limit] if wanted else []


def start(
    cursor: Cursor, bulk_id: str, row: Mapping[str, Any], filters: Mapping[str, Any], wanted: Sequence[str]
) -> int:
    """A new act, inside the caller's transaction; how many runs it takes."""
    cursor.execute(
        "insert into bulk (id, action, reason, compensate, filter, actor, matched)"
        " values (%(id)s, %(action)s, %(reason)s, %(compensate)s, %(filter)s::jsonb, %(actor)s, 0)",
        {"id": bulk_id, **row},
    )
    query, values = runs.matching(filters, wanted)
    cursor.execute(
        f"insert into bulk_item (bulk_id, execution_id) select %s, y.id from ({query}) y", [bulk_id, *values]
    )
    matched = cursor.rowcount
    cursor.execute(
        "update bulk set matched = %s, status = case when %s = 0 then 'completed' else status end,"
        " finished_at = case when %s = 0 then now() end where id = %s",
        (matched, matched, matched, bulk_id),
    )
    return matched


def get(cursor: Cursor, bulk_id: str) -> BulkRow | None:
    """An act as it stands."""
    cursor.execute(
        """select b.id, b.action, b.reason, b.compensate, b.filter, b.status, b.matched, c.done, c.refused, b.created_at, b.finished_at
             from bulk b, lateral (
               select count(*) filter (where i.outcome = 'ok') done, count(*) filter (where i.outcome <> 'ok') refused
                 from bulk_item i where i.bulk_id = b.id) c
            where b.id = %s""",
        (bulk_id,),
    )
    row = cursor.fetchone()
    return BulkRow(*row) if row else None


def cancel(cursor: Cursor, bulk_id: str) -> bool:
    """Tell no more runs; False if it was not running."""
    cursor.execute(
        "update bulk set status = 'cancelled', finished_at = now() where id = %s and status = 'running'", (bulk_id,)
    )
    return cursor.rowcount > 0


def running(cursor: Cursor) -> list[str]:
    """Acts that are not through, oldest first."""
    cursor.execute("select id from bulk where status = 'running' order by id")
    return [row[0] for row in cursor.fetchall()]


def step(cursor: Cursor, bulk_id: str, limit: int) -> int:
    """Tell the next runs; how many."""
    cursor.execute("select esb_bulk_step(%s, %s)", (bulk_id, limit))
    return int(cursor.fetchone()[0])  # type: ignore[index]


def forget(cursor: Cursor, days: float) -> None:
    """Delete acts that ended so long ago."""
    cursor.execute("delete from bulk where finished_at < now() - make_interval(secs => %s * 86400)", (days,))
