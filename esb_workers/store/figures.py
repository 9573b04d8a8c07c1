"""Counts for metrics and for people. Each is bounded by an index: a scrape must not cost more as history grows."""

from __future__ import annotations

from esb_workers.store.engine import Cursor
from esb_workers.store.jobs import QueueFigures
from esb_workers.store.jobs import figures as queues

__all__ = [
    "QueueFigures",
    "attempts",
    "backlog_exceeds",
    "blocked_keys",
    "circuits",
    "dead_letters",
    "executions",
    "held_lanes",
    "listeners",
    "queues",
    "schema_warnings",
    "server_version",
]


def attempts(cursor: Cursor) -> dict[str, int]:
    """Attempts that ended in the last minute, by outcome; of deliveries at most ten minutes old."""
    cursor.execute("""
        select outcome, sum(n)::bigint from (
          select case status when 'delivered' then 'ok' else 'failed' end as outcome, count(*) as n from delivery
           where id >= esb_uuid_at(now() - interval '10 minutes') and finished_at > now() - interval '1 minute'
             and status in ('delivered', 'dead') group by 1
          union all
          select outcome, count(*) from attempt
           where delivery_id >= esb_uuid_at(now() - interval '10 minutes') and finished_at > now() - interval '1 minute'
           group by 1) x group by 1""")
    return {"ok": 0, "failed": 0} | {outcome: int(count) for outcome, count in cursor.fetchall()}


def executions(cursor: Cursor) -> dict[str, int]:
    """Executions by status: all that are open, and those of the last hour that are not."""
    cursor.execute("""
        select case status when 'open' then 'running' else status end, count(*) from execution
         where id >= esb_uuid_at(now() - interval '1 hour')
            or id = any(array(select execution_id from job where execution_id is not null))
         group by 1""")
    return {"running": 0, "completed": 0, "failed": 0} | {status: int(count) for status, count in cursor.fetchall()}


def dead_letters(cursor: Cursor) -> int:
    """Dead letters that wait for a decision, counted up to a hundred thousand."""
    cursor.execute("select count(*) from (select 1 from dead_letter limit 100000) x")
    return int(cursor.fetchone()[0])  # type: ignore[index]


def circuits(cursor: Cursor) -> dict[str, int]:
    """Instances by the state of their circuits."""
    cursor.execute("select circuit, count(*) from service_state group by 1")
    return {"closed": 0, "open": 0, "half_open": 0} | {state: int(count) for state, count in cursor.fetchall()}


def held_lanes(cursor: Cursor) -> dict[str, int]:
    """Destinations whose deliveries are held, by the reason."""
    cursor.execute(
        "select gate, count(*) from lane where pool = 2 and gate_until > now() and gate <> 'pull' group by 1"
    )
    return {"maintenance": 0, "circuit_open": 0, "no_instance": 0} | {gate: int(n) for gate, n in cursor.fetchall()}


def blocked_keys(cursor: Cursor) -> int:
    """Ordering keys that wait for a person."""
    cursor.execute("select count(*) from job where okey is not null and state = 'b' and pool = 2")
    return int(cursor.fetchone()[0])  # type: ignore[index]


def backlog_exceeds(cursor: Cursor, limit: int) -> bool:
    """Whether more than `limit` messages and deliveries are due, or wait behind one of their key, and are not held.

    PostgreSQL's own estimate of the table answers at once as long as it is far below; else they are counted.
    """
    cursor.execute("""
        select greatest(c.reltuples, s.n_live_tup) from pg_class c left join pg_stat_user_tables s on s.relid = c.oid
         where c.oid = 'job'::regclass""")
    (estimate,) = cursor.fetchone()  # type: ignore[misc]
    if estimate < limit / 2:
        return False
    cursor.execute(
        "select count(*) > %(limit)s from (select 1 from job j join lane l on l.id = j.lane_id"
        " where j.pool in (1, 2) and j.state in ('r', 'q') and l.gate_until <= now() limit %(limit)s + 1) x",
        {"limit": limit},
    )
    return bool(cursor.fetchone()[0])  # type: ignore[index]


def schema_warnings(cursor: Cursor) -> dict[str, int]:
    """Messages accepted in the last minute that do not fit their type's schema, by type."""
    cursor.execute("""
        select type, count(*) from message_warning
         where message_id >= esb_uuid_at(now() - interval '1 hour') and at > now() - interval '1 minute' group by 1""")
    return {name: int(count) for name, count in cursor.fetchall()}


def listeners(cursor: Cursor) -> list[tuple[str, str, int]]:
    """What became of the messages that listeners took off their queues: (listener, outcome, how many)."""
    cursor.execute("""
        select l.name, x.outcome, x.n from listener l join listener_state s on s.listener_id = l.id,
               lateral (values ('accepted', s.accepted), ('duplicate', s.duplicates), ('parked', s.parked)) x(outcome, n)""")
    return cursor.fetchall()


def server_version(cursor: Cursor) -> str:
    """PostgreSQL's own name of its version."""
    cursor.execute("show server_version")
    return str(cursor.fetchone()[0])  # type: ignore[index]
