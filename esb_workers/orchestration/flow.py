"""What comes next: pure decisions over a program and a state. The clock and chance come from the caller."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from esb_workers.clock import from_wire
from esb_workers.orchestration.failures import Failure, catches
from esb_workers.orchestration.model import Program, Step
from esb_workers.orchestration.state import Current, State, step_of


@dataclass(frozen=True, slots=True)
class Perform:
    """An attempt at a step, or the continuation of one that waited. `attempt` counts from 1."""

    step: Step
    path: str
    attempt: int
    fresh: bool  # a new visit: its condition decides first
    resumed: bool  # the same attempt goes on after a wait


@dataclass(frozen=True, slots=True)
class Rest:
    """Nothing to do before this moment: a retry is due then."""

    until: datetime


@dataclass(frozen=True, slots=True)
class Raise:
    """The innermost path failed and nothing in it takes the error: the step around it fails."""

    step: Step
    path: str
    error: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Late:
    """A step that waits, or holds others that do, has taken longer than its timeout."""

    step: Step
    path: str


@dataclass(frozen=True, slots=True)
class Over:
    """The strand's path has ended; with an error, if it failed."""

    error: dict[str, Any] | None = None


Move = Perform | Rest | Raise | Late | Over


def next_move(program: Program, state: State, now: datetime) -> Move:
    """What a strand does next."""
    if not state.frames:
        return Over()
    if (late := _late(program, state, now)) is not None:
        return late
    if state.failure is not None:
        if len(state.frames) == 1:
            return Over(state.failure)
        around = state.frames[-2]
        return Raise(program.steps[around.step or ""], around.prefix + (around.step or ""), state.failure)
    frame = state.frame
    if frame.step is None:
        if len(state.frames) == 1:
            return Over()
        frame = state.frames[-2]  # a round has ended: the loop decides
    step = program.steps[frame.step or ""]
    return perform(step, frame.prefix + step.id, frame.current, now)


def _late(program: Program, state: State, now: datetime) -> Late | None:
    """The outermost step that is over its time. A call under way keeps its time itself."""
    for frame in state.frames:
        current = frame.current
        if current is None or current.deadline is None or frame.step is None:
            continue
        waits = current.memo is not None or frame is not state.frame
        if waits and from_wire(current.deadline) <= now:
            return Late(program.steps[frame.step], frame.prefix + frame.step)
    return None


def soonest_deadline(state: State) -> datetime | None:
    """When the first of the steps under way will have taken too long."""
    found = (frame.current.deadline for frame in state.frames if frame.current is not None)
    return min((from_wire(deadline) for deadline in found if deadline is not None), default=None)


def perform(step: Step, path: str, current: Current | None, now: datetime) -> Perform | Rest:
    """The attempt that a step's current visit (None: a new one) is at."""
    if current is None:
        return Perform(step, path, 1, fresh=True, resumed=False)
    if current.memo is not None:
        return Perform(step, path, current.attempt, fresh=False, resumed=True)
    if current.due is not None and (due := from_wire(current.due)) > now:
        return Rest(due)
    # A retry that is due; or an attempt whose worker was lost, which is repeated under the same key.
    return Perform(step, path, current.attempt + 1, fresh=False, resumed=False)


@dataclass(frozen=True, slots=True)
class Retry:
    """Try again in so many milliseconds."""

    delay_ms: int


@dataclass(frozen=True, slots=True)
class Handled:
    """The failure is taken: go on at `next`. `via` says by what; `at` is where the error is put."""

    next: str | None
    via: str
    at: str | None = None


@dataclass(frozen=True, slots=True)
class Unhandled:
    """Nothing on this path takes the failure."""


@dataclass(frozen=True, slots=True)
class Exhausted:
    """Another attempt might end differently, there are none left, and the run is to wait for somebody to decide."""


Verdict = Retry | Handled | Unhandled | Exhausted


def after_failure(
    program: Program, step: Step, failure: Failure, failures: int, random: Callable[[], float]
) -> Verdict:
    """What becomes of a failed attempt; `failures` counts the earlier ones of this visit."""
    policy = program.policy(step)
    if failure.retryable and failures < policy.retries:
        return Retry(max(policy.delay(failures + 1, random), failure.retry_after_ms or 0))
    verdict = handler(program, step, failure.error_class)
    if isinstance(verdict, Unhandled) and program.pauses_exhausted and failure.retryable and not step.lists:
        return Exhausted()  # of a step made of steps, those have paused already
    return verdict


def handler(program: Program, step: Step, error_class: str) -> Handled | Unhandled:
    """Who takes an error of a step that is not tried again: a `catch`, `onFailure`, or `onError: continue`."""
    for catch in step.catches:
        if catches(catch.errors, error_class):
            return Handled(catch.next, "catch", catch.result_path)
    if step.on_failure is not None:
        return Handled(step.on_failure, "onFailure")
    if program.on_error == "continue" and not step.kind.ends:
        return Handled(step.next, "continue")
    return Unhandled()


def names_of(
    program: Program, state: State, execution: dict[str, Any], given: Any, frame_names: dict[str, Any]
) -> dict[str, Any]:
    """The names in scope of an expression. Loop variables win, then the fixed names, then the context's own."""
    return {
        **state.context,
        "context": state.context,
        "variables": state.context,
        "steps": state.steps,
        "error": state.error,
        "execution": {**execution, "startedAt": state.started_at},
        "input": given,
        **frame_names,
    }


def compensations(program: Program, completed: list[tuple[str, Any]]) -> list[dict[str, Any]]:
    """What is to be undone: a stack whose end, the last completed, is next. `completed`: (path, output) in order."""
    return [
        {"path": path, "output": output}
        for path, output in completed
        if (step := program.steps.get(step_of(path))) is not None and step.compensate is not None
    ]
