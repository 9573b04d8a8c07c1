"""Deliveries that their receivers fetch: leases without a worker process."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Final, NamedTuple

from esb_workers.store.engine import Cursor
from esb_workers.store.jobs import ROW_FORMAT, Claim

#: Stands in a job for "leased to whoever pulls": ids of worker processes begin at 1.
NOBODY: Final = 0


class Lease(NamedTuple):
    """A delivery's attempt that was handed out; `attempt` is the fence."""

    id: str
    attempt: int


class Figures(NamedTuple):
    """What lies on a service's lane."""

    ready: int
    leased: int
    later: int
    oldest_ready_age_ms: int


def lease(cursor: Cursor, service: str, limit: int, lease_ms: int) -> list[tuple[Claim, datetime]]:
    """Up to `limit` deliveries in their order, each with the end of its lease."""
    cursor.execute(
        "select * from esb_pull(%s, %s, %s::smallint, make_interval(secs => %s))",
        (service, limit, ROW_FORMAT, lease_ms / 1000),
    )
    return [(Claim(*row[:-1]), row[-1]) for row in cursor.fetchall()]


def standing(cursor: Cursor, service: str, leases: Sequence[Lease]) -> list[tuple[Claim, int]]:
    """Those leases that still stand, each with how long it has been held, milliseconds."""
    cursor.execute("select * from esb_pulled(%s, %s::uuid[], %s::int[])", (service, *_columns(leases)))
    return [(Claim(*row[:-1]), int(row[-1])) for row in cursor.fetchall()]


def lengthen(cursor: Cursor, service: str, leases: Sequence[Lease], lease_ms: int) -> set[Lease]:
    """Have those leases that still stand end in `lease_ms` from now; which these are."""
    cursor.execute(
        "select * from esb_pull_longer(%s, %s::uuid[], %s::int[], make_interval(secs => %s))",
        (service, *_columns(leases), lease_ms / 1000),
    )
    return {Lease(*row) for row in cursor.fetchall()}


def figures(cursor: Cursor, service: str) -> Figures:
    """What lies on the lane, by state."""
    cursor.execute(
        "select count(*) filter (where j.state = 'r'), count(*) filter (where j.state = 'f'),"
        " count(*) filter (where j.state not in ('r', 'f')),"
        " coalesce(extract(epoch from now() - min(j.created_at) filter (where j.state = 'r')) * 1000, 0)::bigint"
        " from job j join lane l on l.id = j.lane_id where l.pool = 2 and l.name = %s and j.pool = 2",
        (service,),
    )
    return Figures(*cursor.fetchone())  # type: ignore[misc]


def _columns(leases: Iterable[Lease]) -> tuple[list[str], list[int]]:
    pairs = list(leases)
    return [one.id for one in pairs], [one.attempt for one in pairs]
