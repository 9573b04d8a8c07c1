"""Where a run that has ended, or stands still, goes on when a person says so. Pure: journal in, state out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import orjson

from esb_workers.errors import FieldError, Invalid
from esb_workers.orchestration import state as states
from esb_workers.orchestration.model import Program, StepList
from esb_workers.orchestration.state import JSON, Event, Frame, State, step_of


def root_state(program: Program, given: str, snapshot: tuple[int, str] | None, rows: Iterable[Sequence[Any]]) -> State:
    """The state of a run's root strand: its snapshot, if any, and the events after it."""
    state = states.load(snapshot[1]) if snapshot else _first(program, given)
    return states.replay(state, events_of(rows))


def _first(program: Program, given: str) -> State:
    return states.start(program.top.first, {**program.variables, **orjson.loads(given)})


def events_of(rows: Iterable[Sequence[Any]]) -> list[Event]:
    """Journal rows (n, type, path, visit, iteration, JSON text) as events."""
    return [Event(n, t, p, v, i, orjson.loads(d) if d else {}) for n, t, p, v, i, d in rows]


def rerun(program: Program, given: str, rows: Sequence[Sequence[Any]], step: str, edits: JSON, visits: int) -> State:
    """The state from which a run goes on at `step` (an id, or a path) as if it had just come there.

    `rows` is the root's whole journal, `visits` how often the most visited step was visited. Where the run has been at
    the step, the context is what it was then; else, what it was at the end. Raises Invalid.
    """
    check_step(program, step, "fromStep")
    events = events_of(rows)
    end = states.replay(_first(program, given), events)
    opened = [at for at, event in enumerate(events) if _opens(event, step)]
    if opened:
        state = states.replay(_first(program, given), events_of(rows[: opened[-1]]))
        path = str(events[opened[-1]].path)
        while len(state.frames) > 1 and state.frame.prefix != states.prefix_of(path):
            state.frames.pop()
        state.frame.step = step_of(path)
    else:
        state = end
        _check_top(program, step)
        state.frames = [Frame("", step)]
        state.error = state.handling = None
    for frame in state.frames:
        frame.visits = {}
    state.frame.current = None
    state.failure = state.failed_frames = state.undo = state.result = None
    state.succeeded = False
    state.base = end.base + visits
    state.context = states.merged(state.context, edits)
    return state


def _opens(event: Event, step: str) -> bool:
    if event.visit != event.n or event.path is None or not event.type.startswith("step."):
        return False
    return step in (event.path, step_of(event.path))


def check_step(program: Program, step: str, field: str) -> None:
    """Raises Invalid if the definition has no such step."""
    if step_of(step) not in program.steps:
        raise Invalid([FieldError(field, f"{step!r} is no step of this workflow")])


def _check_top(program: Program, step: str) -> None:
    if step in program.top.steps:
        return
    around = _around(program.top, step_of(step))
    raise Invalid(
        [FieldError("fromStep", f"{step!r} is inside {around!r}, whose context is gone: rerun from {around!r}")]
    )


def _around(top: StepList, step: str) -> str | None:
    """The step of the definition's own list inside which a step stands."""

    def holds(inner: StepList) -> bool:
        return step in inner.steps or any(holds(part) for one in inner.steps.values() for part in one.lists)

    return next((one.id for one in top.steps.values() if any(holds(part) for part in one.lists)), None)


def standing_at(state: State, step: str) -> str | None:
    """The path of the step, named by id or path, at which a strand stands: in one of its places. None: elsewhere."""
    if state.failure is not None:
        return None
    for frame in state.frames:
        if frame.step is not None and step in (frame.step, f"{frame.prefix}{frame.step}"):
            return f"{frame.prefix}{frame.step}"
    return None


def failed_inside(error: Mapping[str, Any], step: str) -> bool:
    """Whether a run's error came from this step, named by id or path."""
    path = str(error.get("step") or "")
    return bool(path) and step in (path, step_of(path))
