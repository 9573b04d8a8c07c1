"""Executions as they are read: what they are doing is derived from their jobs, what they did from their journal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final, NamedTuple

from esb_workers.store.engine import Cursor

#: What an open run is doing. `pending`: nobody has claimed its root yet.
_SHOWN: Final = """
    case when e.status <> 'open' then e.status
         when exists (select from job j where j.id = e.id and j.attempt = 0) then 'pending'
         when exists (select from job j where j.execution_id = e.id and j.state in ('f', 'r')) then 'running'
         else 'waiting' end"""
_STARTED: Final = """
    coalesce(e.started_at, (select v.at from event v where v.execution_id = e.id and v.job_id = e.id and v.n = 1))"""


def _columns(status: str, started: str) -> str:
    return f"""
    e.id, e.workflow_id, w.name as workflow_name, w.version as workflow_version, e.client_id, {status} as status, e.business_key,
    e.correlation_id, e.priority, e.parent_id, e.schedule_id, e.scheduled_for, e.input, e.context, e.output, e.error, e.reason, e.deadline, e.created_at,
    {started} as started_at, e.updated_at, e.finished_at"""


_COLUMNS: Final = _columns(_SHOWN, _STARTED)
#: Of a run that has ended, for which nothing has to be derived; to plan the derivations takes longer than to read it.
_ENDED: Final = _columns("e.status", "e.started_at")
#: Statuses that stand in no column of their own.
OPEN: Final = frozenset({"pending", "running", "waiting"})


class RunRow(NamedTuple):
    """A run. JSON columns are text."""

    id: str
    workflow_id: str
    workflow_name: str
    workflow_version: str
    client_id: str | None
    status: str
    business_key: str | None
    correlation_id: str
    priority: int
    parent_id: str | None
    schedule_id: str | None
    scheduled_for: datetime | None
    input: str
    context: str | None
    output: str | None
    error: str | None
    reason: str | None
    deadline: datetime | None
    created_at: datetime
    started_at: datetime | None
    updated_at: datetime
    finished_at: datetime | None


class HistoryRow(NamedTuple):
    """One journal entry."""

    seq: int
    at: datetime
    job_id: str
    n: int
    type: str
    path: str | None
    visit: int | None
    iteration: int | None
    data: str | None


_EVENT: Final = "seq, at, job_id, n, type, path, visit, iteration, data"


def get(cursor: Cursor, execution_id: str) -> RunRow | None:
    """One run."""
    ended = " and e.status <> 'open' and e.started_at is not null"
    for columns, which in ((_ENDED, ended), (_COLUMNS, "")):
        cursor.execute(
            f"select {columns} from execution e join workflow w on w.id = e.workflow_id where e.id = %s{which}",
            (execution_id,),
        )
        if (row := cursor.fetchone()) is not None:
            return RunRow(*row)
    return None


def status(cursor: Cursor, execution_id: str) -> str | None:
    """The stored status: `open` until it ends or is paused."""
    cursor.execute("select status from execution where id = %s", (execution_id,))
    row = cursor.fetchone()
    return row[0] if row else None


def unclaimed(cursor: Cursor, execution_id: str) -> bool:
    """Whether no worker has taken it up yet."""
    cursor.execute("select from job where id = %s and attempt = 0", (execution_id,))
    return cursor.rowcount > 0


def page(cursor: Cursor, limit: int, before: str | None, filters: Mapping[str, Any]) -> list[RunRow]:
    """Newest first, one more than `limit` if there are more. Filters: lists by column, `since`, `until`."""
    clauses, values = _clauses(before, filters)
    wanted = filters.get("status")
    if wanted and set(wanted) <= OPEN | {"paused"}:
        clauses.append("e.status in ('open', 'paused')")  # as the partial index says it
    query = f"select * from (select {_COLUMNS} from execution e join workflow w on w.id = e.workflow_id"
    query += (" where " + " and ".join(clauses) if clauses else "") + " order by e.id desc"
    if wanted:
        query += ") x where x.status = any(%s) order by x.id desc limit %s"
        values += [list(wanted), limit + 1]
    else:
        query += " limit %s) x"
        values.append(limit + 1)
    cursor.execute(query, values)
    return [RunRow(*row) for row in cursor.fetchall()]


def matching(filters: Mapping[str, Any], statuses: Sequence[str]) -> tuple[str, list[Any]]:
    """The query for the ids of runs in one of these statuses that fit the filters, and its values."""
    clauses, values = _clauses(None, filters)
    if set(statuses) <= OPEN | {"paused"}:
        clauses.append("e.status in ('open', 'paused')")
    where = " where " + " and ".join(clauses) if clauses else ""
    query = f"select e.id, {_SHOWN} as status from execution e join workflow w on w.id = e.workflow_id{where}"
    return f"select x.id from ({query}) x where x.status = any(%s)", [*values, list(statuses)]


def _clauses(before: str | None, filters: Mapping[str, Any]) -> tuple[list[str], list[Any]]:
    clauses: list[str] = []
    values: list[Any] = []
    for name in ("id", "workflow_id", "client_id"):
        if filters.get(name):
            clauses.append(f"e.{name} = any(%s::uuid[])")
            values.append(list(filters[name]))
    for name in ("correlation_id", "business_key"):
        if filters.get(name):
            clauses.append(f"e.{name} = any(%s)")
            values.append(list(filters[name]))
    if filters.get("workflow_name"):
        clauses.append("w.name = any(%s)")
        values.append(list(filters["workflow_name"]))
    if filters.get("error_class"):  # as `catch` takes them: HttpStatus.5xx is all of them
        clauses.append("e.error_class is not null and e.error_class like any(%s)")
        values.append([_like(name) for name in filters["error_class"]])
    for value, clause in (
        (before, "e.id < %s"),
        (filters.get("since"), "e.created_at >= %s"),
        (filters.get("until"), "e.created_at < %s"),
    ):
        if value is not None:
            clauses.append(clause)
            values.append(value)
    return clauses, values


def _like(error_class: str) -> str:
    escaped = error_class.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
    grouped = escaped.startswith("HttpStatus.") and escaped.endswith("xx")
    return f"{escaped[:-2]}__" if grouped else escaped


def step_states(cursor: Cursor, execution_id: str) -> list[tuple[str, str, int]]:
    """(step id, type of a visit's last event, how many such visits) of a run, by their first appearance."""
    cursor.execute(
        "select substring(path from '[^/]*$'), type, count(*) from ("
        "  select distinct on (job_id, visit) path, type, seq from event"
        "   where execution_id = %s and type like 'step.%%' and visit is not null order by job_id, visit, n desc) x"
        " group by 1, 2 order by min(seq)",
        (execution_id,),
    )
    return list(cursor.fetchall())


def history(cursor: Cursor, execution_id: str, limit: int, after: int) -> list[HistoryRow]:
    """Journal entries, oldest first, one more than `limit` if there are more."""
    cursor.execute(
        f"select {_EVENT} from event where execution_id = %s and seq > %s order by seq limit %s",
        (execution_id, after, limit + 1),
    )
    return [HistoryRow(*row) for row in cursor.fetchall()]


def step_openings(cursor: Cursor, execution_id: str, limit: int, *, after: int) -> list[HistoryRow]:
    """The events after seq `after` that opened a visit of a step, oldest first, one more than `limit` if there are."""
    cursor.execute(
        f"select {_EVENT} from event where execution_id = %s and visit = n and type like 'step.%%' and seq > %s"
        " order by seq limit %s",
        (execution_id, after, limit + 1),
    )
    return [HistoryRow(*row) for row in cursor.fetchall()]


def newest_steps(cursor: Cursor, execution_id: str, limit: int) -> tuple[list[HistoryRow], list[HistoryRow]]:
    """The events that opened the newest visits of steps, and every event of these visits; both in order."""
    cursor.execute(
        f"select {_EVENT} from event where execution_id = %(run)s and type like 'step.%%' and (job_id, visit) in"
        " (select job_id, n from event where execution_id = %(run)s and visit = n and type like 'step.%%'"
        "   order by seq desc limit %(limit)s) order by seq",
        {"run": execution_id, "limit": limit},
    )
    events = [HistoryRow(*row) for row in cursor.fetchall()]
    return [event for event in events if event.visit == event.n], events


def step_events(cursor: Cursor, execution_id: str, visits: Sequence[tuple[str, int]]) -> list[HistoryRow]:
    """Every event of these visits (strand, n), in order."""
    if not visits:
        return []
    cursor.execute(
        f"select {_EVENT} from event where execution_id = %s and type like 'step.%%'"
        " and (job_id, visit) in (select * from unnest(%s::uuid[], %s::int[])) order by seq",
        (execution_id, [strand for strand, _ in visits], [n for _, n in visits]),
    )
    return [HistoryRow(*row) for row in cursor.fetchall()]


def undone(cursor: Cursor, execution_id: str) -> dict[str, int]:
    """The paths of steps whose compensation has completed, with the seq of the last one."""
    cursor.execute(
        "select path, max(seq) from event where execution_id = %s and type = 'step.compensated' group by path",
        (execution_id,),
    )
    return {str(path).removesuffix(":compensate"): seq for path, seq in cursor.fetchall()}
