"""Schedules: written by people, advanced by whoever finds them due."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final, NamedTuple

import psycopg2

from esb_workers.store.engine import Cursor, is_unique_violation

_WRITTEN: Final = (
    "name", "workflow_id", "workflow_name", "version", "cron", "timezone", "input", "catch_up", "overlap", "jitter",
    "start_at", "end_at", "enabled", "next_at",
)  # fmt: skip


class ScheduleRow(NamedTuple):
    """A schedule. `input` is JSON text, `jitter` milliseconds."""

    id: str
    name: str
    workflow_id: str | None
    workflow_name: str | None
    version: str | None
    cron: str
    timezone: str
    input: str
    catch_up: str
    overlap: str
    jitter: int
    start_at: datetime | None
    end_at: datetime | None
    enabled: bool
    next_at: datetime | None
    queued: list[datetime]
    last_at: datetime | None
    last_outcome: str | None
    last_run: str | None
    etag: int
    created_at: datetime
    updated_at: datetime


_COLUMNS: Final = ", ".join(ScheduleRow._fields)
_BUSY: Final = "exists (select from execution e where e.schedule_id = s.id and e.status in ('open', 'paused'))"


def insert(cursor: Cursor, id_: str, values: Mapping[str, Any]) -> bool:
    """Add a schedule; False if its name is taken."""
    marks = ", ".join(f"%({name})s" for name in _WRITTEN)
    return _unless_taken(
        cursor, f"insert into schedule (id, {', '.join(_WRITTEN)}) values (%(id)s, {marks})", {"id": id_, **values}
    )


def update(cursor: Cursor, id_: str, values: Mapping[str, Any]) -> bool:
    """Replace what people write of a schedule that the caller has locked; False if its name is taken."""
    sets = ", ".join(f"{name} = %({name})s" for name in _WRITTEN)
    return _unless_taken(
        cursor,
        f"update schedule set {sets}, etag = etag + 1, updated_at = now(),"
        " queued = case when %(overlap)s = 'queue' then queued else '{}' end where id = %(id)s",
        {"id": id_, **values},
    )


def _unless_taken(cursor: Cursor, sql: str, values: Mapping[str, Any]) -> bool:
    try:
        cursor.execute(sql, values)
    except psycopg2.Error as error:
        if is_unique_violation(error, "schedule_name"):
            return False
        raise
    return True


def get(cursor: Cursor, id_: str, *, lock: bool = False) -> ScheduleRow | None:
    """One schedule."""
    cursor.execute(f"select {_COLUMNS} from schedule where id = %s {'for update' if lock else ''}", (id_,))
    row = cursor.fetchone()
    return ScheduleRow(*row) if row else None


def page(
    cursor: Cursor,
    limit: int,
    before: str | None,
    *,
    names: Sequence[str] | None = None,
    workflows: Sequence[str] | None = None,
    enabled: bool | None = None,
) -> list[ScheduleRow]:
    """Newest first, one more than `limit` if there are more. `workflows`: names, as the schedules have them."""
    clauses, values = ["true"], []
    for value, clause in (
        (before, "id < %s"),
        ([name.lower() for name in names] if names is not None else None, "lower(name) = any(%s)"),
        (list(workflows) if workflows is not None else None, "workflow_name = any(%s)"),
        (enabled, "enabled = %s"),
    ):
        if value is not None:
            clauses.append(clause)
            values.append(value)
    cursor.execute(
        f"select {_COLUMNS} from schedule where {' and '.join(clauses)} order by id desc limit %s", (*values, limit + 1)
    )
    return [ScheduleRow(*row) for row in cursor.fetchall()]


def delete(cursor: Cursor, id_: str) -> None:
    """Remove a schedule; its runs stay."""
    cursor.execute("delete from schedule where id = %s", (id_,))


def take_due(cursor: Cursor, passed: Sequence[str]) -> tuple[ScheduleRow, datetime, list[str]] | None:
    """Lock a schedule that has something to do, if there is one, those `passed` left out.

    The schedule, the time, and its open runs, oldest first.
    """
    cursor.execute(
        f"""select {_COLUMNS}, now() from schedule s
             where enabled and (next_at <= now() or (cardinality(queued) > 0 and not {_BUSY})) and id <> all(%s::uuid[])
             order by next_at nulls last limit 1 for update skip locked""",
        (list(passed),),
    )
    row = cursor.fetchone()
    if row is None:
        return None
    found = ScheduleRow(*row[:-1])
    cursor.execute(
        "select id from execution where schedule_id = %s and status in ('open', 'paused') order by id", (found.id,)
    )
    return found, row[-1], [open_[0] for open_ in cursor.fetchall()]


def advance(
    cursor: Cursor, id_: str, next_at: datetime | None, queued: Sequence[datetime], last: Mapping[str, Any] | None
) -> None:
    """Where a schedule stands now. `last`: {at, outcome, run} of the due time that was handled last, if any was."""
    cursor.execute(
        "update schedule set next_at = %(next)s, queued = %(queued)s::timestamptz[], last_at = coalesce(%(at)s, last_at),"
        " last_outcome = coalesce(%(outcome)s, last_outcome), last_run = coalesce(%(run)s, last_run) where id = %(id)s",
        {"id": id_, "next": next_at, "queued": list(queued), **(last or {"at": None, "outcome": None, "run": None})},
    )
