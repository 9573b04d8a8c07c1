"""Where a strand stands. Rebuilt by applying its journal, event by event, to a snapshot: nothing else is stored.

`apply` is pure and total: whatever the engine journals, a later process that replays it stands at the same
place with the same context. The definition is not consulted; each event says what follows from it.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import orjson

JSON = dict[str, Any]


class Event(NamedTuple):
    """One entry of a strand's journal. `n` numbers it in its strand; `visit` is the n that opened this visit."""

    n: int
    type: str
    path: str | None
    visit: int | None
    iteration: int | None
    data: JSON


@dataclass(slots=True)
class Current:
    """The visit of a step that is under way. `memo` is what the step type asked to be told when it goes on."""

    visit: int
    attempt: int = 0
    failures: int = 0
    memo: JSON | None = None
    due: str | None = None  # wire time of the next attempt
    id: str | None = None  # made for this attempt, if its type wants one
    deadline: str | None = None  # wire time at which this attempt has taken too long


@dataclass(slots=True)
class Frame:
    """A place in one list: the definition's, a branch's, an item's, or a loop's round."""

    prefix: str
    step: str | None
    names: JSON = field(default_factory=dict)
    last: Any = None
    visits: dict[str, int] = field(default_factory=dict)
    current: Current | None = None


@dataclass(slots=True)
class State:
    """A strand: its context, what its steps have put out, and a stack of places, innermost last."""

    context: JSON = field(default_factory=dict)
    steps: dict[str, JSON] = field(default_factory=dict)
    frames: list[Frame] = field(default_factory=list)
    error: JSON | None = None
    started_at: str | None = None
    failure: JSON | None = None  # the error that ended the innermost path, until somebody takes it
    failed_frames: list[Frame] | None = None  # where it was: a retry goes on there
    handling: JSON | None = None  # the error whose `onError` path runs
    succeeded: bool = False
    result: JSON | None = None  # {"output": …} of a `succeed` step
    item: int | None = None  # a runner: the last item it has ended
    undo: list[JSON] | None = None  # compensations still to run, next one last
    base: int = 0  # what runs again after a rerun counts its visits from here: keys are never used twice

    @property
    def frame(self) -> Frame:
        """The innermost place."""
        return self.frames[-1]


def start(first: str, context: JSON) -> State:
    """The state of a run before its first event."""
    return State(context=context, frames=[Frame("", first)])


def prefix_of(path: str) -> str:
    """`f[3]/` of `f[3]/q`, nothing of `q`."""
    return path[: path.rfind("/") + 1]


def step_of(path: str) -> str:
    """The step's id in a path."""
    return path[path.rfind("/") + 1 :]


def replay(state: State, events: Iterable[Event]) -> State:
    """Apply events in order; answers the same state."""
    for event in events:
        apply(state, event)
    return state


def apply(state: State, event: Event) -> None:
    """What one event makes of a state."""
    kind, _, what = event.type.partition(".")
    if kind == "step":
        _apply_step(state, event, what)
    elif kind == "round":
        _apply_round(state, event)
    elif kind == "item":
        _apply_item(state, event)
    elif kind == "run":
        _apply_run(state, event, what)


def _apply_step(state: State, event: Event, what: str) -> None:
    path = event.path or ""
    frame = _frame_for(state, path)
    current = _visit(frame, event, step_of(path))
    data = event.data
    if what == "started":
        current.attempt, current.due, current.id = data["attempt"], None, data.get("id", current.id)
        current.deadline = data.get("deadline")
    elif what == "waiting":
        current.memo = data.get("memo")
    elif what == "retrying":
        current.failures, current.due = current.failures + 1, data["at"]
        current.memo = current.id = current.deadline = None
    elif what == "exhausted":  # whoever resumes the run asks for another attempt, with a fresh budget
        current.failures, current.memo, current.due, current.id, current.deadline = 0, None, None, None, None
    elif what == "completed":
        _complete(state, frame, step_of(path), data)
    elif what == "failed":
        _fail(state, frame, step_of(path), data)
    elif what == "skipped":
        frame.step, frame.current = data.get("next"), None
    elif what == "compensated" and state.undo:
        state.undo.pop()
        frame.current = None


def place_of(state: State, path: str) -> Frame:
    """The frame a path belongs to, without leaving those inside it."""
    prefix = prefix_of(path)
    for frame in reversed(state.frames):
        if frame.prefix == prefix:
            return frame
    return state.frames[0]


def _frame_for(state: State, path: str) -> Frame:
    """The place a path belongs to; places inside it are over."""
    prefix = prefix_of(path)
    while len(state.frames) > 1 and state.frame.prefix != prefix:
        state.frames.pop()
    return state.frame


def _visit(frame: Frame, event: Event, step: str) -> Current:
    if frame.current is None:
        frame.visits[step] = frame.visits.get(step, 0) + 1
        frame.current = Current(event.n, attempt=1)
    return frame.current


def _complete(state: State, frame: Frame, step: str, data: JSON) -> None:
    output = data.get("output")
    state.steps[step] = {"output": output}
    for name, value in data.get("set", {}).items():
        state.context[name] = value
    if data.get("merge"):
        state.context.update(output or {})
    if (at := data.get("at")) is not None:
        put(state.context, at, output)
    frame.last, frame.step, frame.current = output, data.get("next"), None
    state.failure = None
    if data.get("final") and frame is state.frames[0]:  # inside a round it ends that round only
        state.succeeded = True
        state.result = {"output": output} if "output" in data else None


def _fail(state: State, frame: Frame, step: str, data: JSON) -> None:
    error = data["error"]
    state.steps[step] = {"output": None}
    if "next" in data:
        frame.step, frame.current, frame.last, state.failure = data["next"], None, None, None
        if data.get("via") != "continue":
            state.error = error
        if (at := data.get("at")) is not None:
            put(state.context, at, error)
        return
    if state.failure is None:
        state.failed_frames = copy.deepcopy(state.frames)
    frame.current = None
    state.failure = error


def _apply_round(state: State, event: Event) -> None:
    """A loop begins its next round: its frame is laid on top of the loop's own."""
    path = event.path or ""
    frame = _frame_for(state, path)
    current = _visit(frame, event, step_of(path))
    current.memo = {"round": event.iteration}
    state.frames.append(Frame(f"{path}[{event.iteration}]/", event.data["step"], dict(frame.names)))


def _apply_item(state: State, event: Event) -> None:
    """A runner has ended an item; the next starts from the seed again."""
    state.item, state.frames, state.failure, state.failed_frames = event.iteration, [], None, None


def _apply_run(state: State, event: Event, what: str) -> None:
    if what == "started":
        state.started_at = event.data["at"]
    elif what == "handling":
        state.handling = state.error = event.data["error"]
        state.frames, state.failure = [Frame("", event.data["step"], visits=state.frames[0].visits)], None
    elif what == "compensating":
        state.undo, state.handling = list(event.data["steps"]), event.data["error"]
        state.frames, state.failure = [Frame("", None)], None
    elif what == "retried":
        _retry(state)
    elif what == "edited":
        state.context = merged(state.context, event.data["context"])
    elif what == "rerun":
        _restore(state, event.data["state"])


def _retry(state: State) -> None:
    """Back to where the run failed, with a fresh budget; a compensation that failed goes on as one."""
    if not state.undo:
        if state.failed_frames:
            state.frames = state.failed_frames
        state.handling = state.undo = None
    state.failure = state.failed_frames = None
    state.succeeded, state.result = False, None
    for frame in state.frames:
        if frame.current is not None:
            frame.current.deadline = None
    if state.frames and (current := state.frame.current) is not None:
        current.failures = 0
        current.memo = current.due = current.id = None


def _restore(state: State, raw: JSON) -> None:
    """Everything as the event says: a run goes on from where it once was."""
    there = _state(copy.deepcopy(raw))
    for name in State.__dataclass_fields__:
        setattr(state, name, getattr(there, name))


def merged(target: JSON, patch: JSON) -> JSON:
    """RFC 7386, without changing either argument."""
    result = dict(target)
    for name, value in patch.items():
        below = result.get(name)
        if value is None:
            result.pop(name, None)
        elif isinstance(value, dict):
            result[name] = merged(below if isinstance(below, dict) else {}, value)
        else:
            result[name] = value
    return result


def put(target: JSON, path: str, value: Any) -> None:
    """Set a dotted path, making the objects on the way; what stands in the way is replaced."""
    *parents, last = path.split(".")
    for name in parents:
        below = target.get(name)
        # Copied, never changed in place: the same object may also stand in `steps`.
        target[name] = target = dict(below) if isinstance(below, dict) else {}
    target[last] = value


def dump(state: State) -> str:
    """JSON text of a state."""
    return orjson.dumps(state).decode()


def load(text: str) -> State:
    """The state that `dump` wrote."""
    return _state(orjson.loads(text))


def _state(raw: JSON) -> State:
    raw["frames"] = [_frame(f) for f in raw["frames"]]
    if raw.get("failed_frames"):
        raw["failed_frames"] = [_frame(f) for f in raw["failed_frames"]]
    return State(**raw)


def _frame(raw: JSON) -> Frame:
    current = raw.pop("current")
    return Frame(**raw, current=Current(**current) if current else None)
