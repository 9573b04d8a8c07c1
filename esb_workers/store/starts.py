"""Starting executions (71_starting.sql)."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Final, NamedTuple

from esb_workers.store.engine import Cursor
from esb_workers.store.executions import StrandKey


class Limits(NamedTuple):
    """What a workflow bounds for this run. None: no such bound."""

    key: str | None = None  # runs that share it
    limit: int | None = None
    on_limit: str = "queue"
    rate: float | None = None  # starts a second


NO_LIMITS: Final = Limits()


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """A run to be started. `input` is JSON text."""

    id: str
    workflow: str
    lane: int
    name: str  # of the workflow: business keys belong to it
    correlation: str
    input: str
    client: str | None = None
    trace: str | None = None
    business_key: str | None = None
    reuse: str = "allow_after_end"
    priority: int = 5
    timeout: int | None = None  # ms
    revision: int | None = None
    limits: Limits = NO_LIMITS
    delay_ms: int = 0
    schedule: str | None = None
    due: datetime | None = None
    delivery: str | None = None


class Started(NamedTuple):
    """'ok', 'existing', 'busy', 'limit' or 'gone', and the run that it is about."""

    outcome: str
    id: str | None


def execute(cursor: Cursor, start: Start) -> Started:
    """Start a run inside the caller's transaction. Raises StaleRevision."""
    cursor.execute(
        "select outcome, id from esb_execute(%(id)s, %(workflow)s, %(lane)s, %(client)s, %(correlation)s, %(trace)s, %(name)s,"
        " %(business_key)s, %(priority)s::smallint, %(input)s, %(timeout)s, %(rev)s, %(reuse)s, %(key)s, %(limit)s, %(on_limit)s,"
        " %(rate)s, %(delay)s, %(schedule)s, %(due)s, %(delivery)s)",
        {
            "id": start.id,
            "workflow": start.workflow,
            "lane": start.lane,
            "client": start.client,
            "correlation": start.correlation,
            "trace": start.trace,
            "name": start.name,
            "business_key": start.business_key,
            "priority": start.priority,
            "input": start.input,
            "timeout": start.timeout,
            "rev": start.revision,
            "reuse": start.reuse,
            **start.limits._asdict(),
            "delay": start.delay_ms,
            "schedule": start.schedule,
            "due": start.due,
            "delivery": start.delivery,
        },
    )
    return Started(*cursor.fetchone())  # type: ignore[misc]


def spawn(cursor: Cursor, key: StrandKey, start: Start, *, wait: bool) -> str:
    """A step starts another run: 'ok', 'existing' if that was done before, 'limit' or 'gone'. Raises Superseded."""
    cursor.execute(
        "select esb_spawn(%(job)s, %(attempt)s, %(id)s, %(workflow)s, %(lane)s, %(wait)s, %(input)s, %(timeout)s, %(key)s,"
        " %(limit)s, %(on_limit)s, %(rate)s)",
        {
            "job": key.job,
            "attempt": key.attempt,
            "id": start.id,
            "workflow": start.workflow,
            "lane": start.lane,
            "wait": wait,
            "input": start.input,
            "timeout": start.timeout,
            **start.limits._asdict(),
        },
    )
    return str(cursor.fetchone()[0])  # type: ignore[index]


def admit(cursor: Cursor) -> int:
    """Let held runs go for which there is room by now; how many."""
    cursor.execute("select esb_admit_all()")
    return int(cursor.fetchone()[0])  # type: ignore[index]
