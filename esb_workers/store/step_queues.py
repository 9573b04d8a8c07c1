"""Queues of plug-in steps: each a pool of its own, and the types that its workers bring."""

from __future__ import annotations

from typing import NamedTuple

from esb_workers.store.engine import Cursor


class StepQueue(NamedTuple):
    """A queue, and the number that stands for it in `job.pool`."""

    name: str
    pool: int

    @property
    def bell(self) -> str:
        """Its Celery queue."""
        return bell(self.name)


class QueueDepth(NamedTuple):
    """What waits in a queue."""

    name: str
    due: int
    oldest_due_age_ms: int
    in_flight: int
    workers: int


def bell(name: str) -> str:
    """The Celery queue of a queue of steps."""
    return f"steps.{name}"


def announce(cursor: Cursor, type_: str, queue: str, schema: str) -> None:
    """A worker brings this type. The newest says what its schema is."""
    cursor.execute("insert into step_queue (name) values (%s) on conflict do nothing", (queue,))
    cursor.execute(
        "insert into step_type (name, queue, schema) values (%s, %s, %s)"
        " on conflict (name) do update set queue = excluded.queue, schema = excluded.schema, seen_at = now()",
        (type_, queue, schema),
    )


def named(cursor: Cursor, name: str) -> StepQueue | None:
    """The queue of this name, once a worker has announced it."""
    cursor.execute("select name, pool from step_queue where name = %s", (name,))
    row = cursor.fetchone()
    return StepQueue(*row) if row else None


def all_of(cursor: Cursor) -> list[StepQueue]:
    """Every queue there has been."""
    cursor.execute("select name, pool from step_queue order by name")
    return [StepQueue(*row) for row in cursor.fetchall()]


def types(cursor: Cursor) -> list[tuple[str, str, str]]:
    """(name, queue, JSON text of its schema) of every announced type."""
    cursor.execute("select name, queue, schema from step_type order by name")
    return list(cursor.fetchall())


def depths(cursor: Cursor) -> list[QueueDepth]:
    """What waits in each queue, and who works for it."""
    cursor.execute("""
        select q.name, coalesce(d.due, 0), coalesce(d.age, 0),
               (select count(*) from job j where j.pool = q.pool and j.state = 'f'),
               (select count(*) from worker w where w.pool = q.pool and w.dead_at is null and w.beat_until > now())
          from step_queue q
          left join lateral (
            select count(*) due, greatest(0, extract(epoch from now() - min(greatest(j.run_at, j.created_at))) * 1000)::int8 age
              from job j where j.pool = q.pool and j.state in ('r', 's') and j.run_at <= now()) d on true
         order by q.name""")
    return [QueueDepth(str(row[0]), *map(int, row[1:])) for row in cursor.fetchall()]
