"""Runs as they are shown."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import orjson

from esb_api.schemas.orchestration import ExecutionAnswer, HistoryEntry, ListedExecution, StepAnswer
from esb_workers.orchestration import views
from esb_workers.orchestration.model import Program
from esb_workers.orchestration.state import step_of
from esb_workers.store import executions, runs
from esb_workers.store.engine import Cursor
from esb_workers.store.runs import HistoryRow, RunRow

#: Steps in the answer for one run; all of them are in its list of steps.
NEWEST = 200


def listed(row: RunRow) -> ListedExecution:
    """A run as lists show it."""
    return ListedExecution(**_common(row))


def shown(cursor: Cursor, row: RunRow, program: Program) -> ExecutionAnswer:
    """A run with all that belongs to it."""
    openings, events = runs.newest_steps(cursor, row.id, NEWEST)
    return ExecutionAnswer(
        **_common(row),
        initial_context=orjson.loads(row.input),
        context=_context(cursor, row, program),
        output=_parsed(row.output),
        reason=row.reason,
        deadline=row.deadline,
        steps=_visits(cursor, row, program, openings, events),
    )


def steps(cursor: Cursor, row: RunRow, program: Program, openings: Sequence[HistoryRow]) -> list[StepAnswer]:
    """The visits that these events opened."""
    events = runs.step_events(cursor, row.id, [(opening.job_id, opening.n) for opening in openings])
    return _visits(cursor, row, program, openings, events)


def _visits(
    cursor: Cursor, row: RunRow, program: Program, openings: Sequence[HistoryRow], events: Sequence[HistoryRow]
) -> list[StepAnswer]:
    compensable = any(step.compensate is not None for step in program.steps.values())
    undone = runs.undone(cursor, row.id) if compensable else {}
    return [step(view) for view in views.steps(program, openings, events, undone, row.status)]


def history(rows: Iterable[HistoryRow], before: int) -> list[HistoryEntry]:
    """Entries numbered from `before` + 1."""
    return [
        HistoryEntry(
            seq=number,
            at=row.at,
            type=row.type,
            step=step_of(row.path) if row.path else None,
            path=row.path,
            iteration=row.iteration,
            detail=_detail(row),
        )
        for number, row in enumerate(rows, before + 1)
    ]


def _detail(row: HistoryRow) -> Any:
    detail = _parsed(row.data)
    if row.type == "run.rerun":
        detail.pop("state", None)  # for the engine: all that the run knew at that point
    return detail


def step(view: views.StepView) -> StepAnswer:
    """One visit of a step."""
    return StepAnswer(**{name: getattr(view, name) for name in StepAnswer.model_fields})


def _context(cursor: Cursor, row: RunRow, program: Program) -> Any:
    if row.context is not None:
        return orjson.loads(row.context)
    snapshot, events = executions.journal(cursor, row.id, row.id)
    return views.context(program, row.input, snapshot, events)


def _common(row: RunRow) -> dict[str, Any]:
    names = (
        "id",
        "workflow_id",
        "workflow_name",
        "workflow_version",
        "status",
        "correlation_id",
        "business_key",
        "priority",
        "parent_id",
        "schedule_id",
        "scheduled_for",
    )
    moments = ("client_id", "created_at", "started_at", "updated_at", "finished_at")
    return {name: getattr(row, name) for name in (*names, *moments)} | {
        "execution_id": row.id,
        "error": _parsed(row.error),
    }


def _parsed(text: str | None) -> Any:
    return None if text is None else orjson.loads(text)
