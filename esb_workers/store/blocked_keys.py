"""Ordering keys whose head does not get through: which there are, and taking a head out of the way."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final, NamedTuple

from esb_workers.store.engine import Cursor

#: Rows behind a head are counted up to this many.
MOST_COUNTED: Final = 10_000


class BlockedKey(NamedTuple):
    """A key and the delivery at its head. `state`: as in job.state; `waiting`: behind it, at most MOST_COUNTED."""

    delivery_id: str
    key: str
    lane: str
    cursor: dict[str, Any] | None
    route_id: str | None
    route: str | None
    message_id: str
    state: str
    since: datetime
    attempts: int
    next_at: datetime | None
    last: dict[str, Any] | None
    waiting: int


_QUERY = """
    select j.id, j.okey, l.name, j.cursor, j.route_id, r.name, j.message_id, j.state, coalesce(a.since, j.created_at),
           coalesce(a.count, 0), case when j.state in ('s', 'r') then greatest(j.run_at, j.created_at) end, a.last,
           (select count(*) from (select 1 from job q where q.lane_id = j.lane_id and q.okey = j.okey and q.state = 'q'
                                   limit %(most)s) w)
      from (select * from job where okey is not null and state <> 'q' and (state = 'b' or tries > 0 or losses > 0)) j
      join lane l on l.id = j.lane_id left join route r on r.id = j.route_id
      left join lateral (
        select min(finished_at) as since, count(*),
               (array_agg(jsonb_build_object('startedAt', started_at, 'finishedAt', finished_at, 'outcome', outcome,
                                             'detail', detail) order by number desc))[1] as last
          from attempt where delivery_id = j.id) a on true
     where j.pool = 2"""


def page(
    cursor: Cursor,
    limit: int,
    after: str | None,
    *,
    keys: Sequence[str] | None = None,
    destinations: Sequence[str] | None = None,
    blocked: bool | None = None,
) -> list[BlockedKey]:
    """Keys, newest head first, one more than `limit` if there are more; `blocked`: those that need a person, or not."""
    query = _QUERY
    if after is not None:
        query += " and j.id < %(after)s"
    if keys is not None:
        query += " and j.okey = any(%(keys)s)"
    if destinations is not None:
        query += " and (l.name = any(%(destinations)s) or j.cursor->>'dest' = any(%(destinations)s))"
    if blocked is not None:
        query += f" and j.state {'=' if blocked else '<>'} 'b'"
    cursor.execute(
        f"{query} order by j.id desc limit {limit + 1:d}",
        {"most": MOST_COUNTED, "after": after, "keys": keys, "destinations": destinations},
    )
    return [BlockedKey(*row) for row in cursor.fetchall()]


class Ended(NamedTuple):
    """What came of it: `ok` or `not_head`; the lane and key to promote, None while its attempt is under way."""

    outcome: str
    message_id: str
    lane_id: int | None
    okey: str | None


def end_head(cursor: Cursor, delivery_id: str, how: str) -> Ended | None:
    """`skip` or `park` the head of a key; None if there is no such open delivery. See esb_end_head."""
    cursor.execute("select outcome, message_id, lane_id, okey from esb_end_head(%s, %s)", (delivery_id, how))
    row = cursor.fetchone()
    return Ended(*row) if row else None


def is_head(cursor: Cursor, delivery_id: str) -> bool | None:
    """Whether an open delivery is the head of a key; None if there is no such open delivery."""
    cursor.execute(
        "select okey is not null and state <> 'q' from job where id = %s and pool = 2",
        (delivery_id,),
    )
    row = cursor.fetchone()
    return None if row is None else bool(row[0])
