"""What a run looks like from outside: its steps, its context, folded from the journal. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

import orjson

from esb_workers.orchestration.model import Program
from esb_workers.orchestration.resuming import root_state
from esb_workers.orchestration.state import step_of
from esb_workers.store.runs import HistoryRow

FINAL: Final = frozenset({"completed", "failed", "cancelled", "compensated", "timed_out"})
_ENDINGS: Final = {
    "completed": "completed",
    "failed": "failed",
    "skipped": "skipped",
    "cancelled": "cancelled",
    "compensated": "completed",
}


@dataclass(slots=True)
class StepView:
    """One visit of a step."""

    id: str
    path: str
    type: str | None
    name: str | None
    status: str = "pending"
    attempts: int = 0
    input: Any = None
    output: Any = None
    error: Any = None
    started_at: datetime | None = None
    finished_at: datetime | None = None
    next_attempt_at: str | None = None
    waiting_for: str | None = None
    seen: int = field(default=0)  # the seq of its last event


def steps(
    program: Program,
    openings: Sequence[HistoryRow],
    events: Iterable[HistoryRow],
    undone: Mapping[str, int],
    status: str,
) -> list[StepView]:
    """The visits that `openings` opened, as the run's `status` and all their events leave them."""
    views = {(row.job_id, row.n): _opened(program, row) for row in openings}
    for row in events:
        view = views.get((row.job_id, row.visit or 0))
        if view is not None:
            _fold(view, row)
    for view in views.values():
        if view.finished_at is None and status in FINAL:
            view.status = "cancelled"
        elif view.finished_at is None and status == "paused" and view.status == "running":
            view.status = "pending"
        elif view.status == "completed" and undone.get(view.path, 0) > view.seen:
            view.status = "compensated"
    return list(views.values())


def _opened(program: Program, row: HistoryRow) -> StepView:
    path = row.path or ""
    name = step_of(path)
    step = program.steps.get(name.removesuffix(":compensate"))
    if step is not None and name.endswith(":compensate") and step.compensate is not None:
        step = step.compensate
    return StepView(name, path, step.type if step else None, step.name if step else None, started_at=row.at)


def _fold(view: StepView, row: HistoryRow) -> None:
    data: Mapping[str, Any] = orjson.loads(row.data) if row.data else {}
    what = row.type.removeprefix("step.")
    view.seen = row.seq
    view.attempts = max(view.attempts, data.get("attempt", 0))
    view.next_attempt_at = view.waiting_for = None
    if what == "started":
        view.status = "running"
        view.input = data.get("input", view.input)
    elif what == "waiting":
        view.status, view.waiting_for, view.next_attempt_at = "waiting", data.get("reason"), data.get("until")
    elif what == "retrying":
        view.status, view.error, view.next_attempt_at = "retrying", data.get("error"), data.get("at")
    elif what == "exhausted":
        view.status, view.error = "failed", data.get("error")
    elif what in _ENDINGS:
        view.status, view.finished_at = _ENDINGS[what], row.at
        view.output = data.get("output")
        view.error = data.get("error")


def context(program: Program, given: str, snapshot: tuple[int, str] | None, events: Iterable[Sequence[Any]]) -> Any:
    """The context of a run that is still open, or ended without one being kept: its root's, replayed."""
    return root_state(program, given, snapshot, events).context
