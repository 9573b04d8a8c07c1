"""A list of steps as a graph: where each leads, what nobody reaches, and circles that nothing slows."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from esb_workers.errors import FieldError
from esb_workers.orchestration.model import Step, StepList
from esb_workers.orchestration.steps.base import StepType


def all_lists(top: StepList) -> Iterator[StepList]:
    """A list and every list inside its steps."""
    yield top
    for step in top.steps.values():
        for part in step.lists:
            yield from all_lists(part)


def unread(step: Step) -> bool:
    """Whether a step's type or config could not be read: where it leads is unknown, so nothing is said about it."""
    return type(step.kind) is StepType


def edges(step: Step) -> list[tuple[str, str]]:
    """Every way out of a step: (path of the field that names it, target)."""
    found = (
        [(f"{step.where}.config.{path}", target) for path, target in step.kind.jumps(step.config)]
        if step.config is not None
        else []
    )
    through = step.config is None or step.kind.falls_through(step.config) or step.condition is not None
    if step.on_success is not None:
        found.append((f"{step.where}.onSuccess", step.on_success))
    elif step.following is not None and through:
        found.append((step.where, step.following))
    if step.on_failure is not None:
        found.append((f"{step.where}.onFailure", step.on_failure))
    found += [(f"{step.where}.catch[{i}].next", catch.next) for i, catch in enumerate(step.catches)]
    return found


def faults(part: StepList, roots: Iterable[str]) -> list[FieldError]:
    """What is wrong with a list; `roots` are reached from elsewhere, as an `onError` step is."""
    if not part.steps:
        return []
    found = _unknown_targets(part)
    if not any(unread(step) for step in part.steps.values()):
        found += _unreachable(part, [part.first, *roots])
    found += _busy_cycles(part)
    return found


def _unknown_targets(part: StepList) -> list[FieldError]:
    return [
        FieldError(path, f"there is no step {target!r} in {part.where}")
        for step in part.steps.values()
        for path, target in edges(step)
        if target not in part.steps
    ]


def _unreachable(part: StepList, roots: Iterable[str]) -> list[FieldError]:
    seen: set[str] = set()
    waiting = list(roots)
    while waiting:
        name = waiting.pop()
        if name not in seen and name in part.steps:
            seen.add(name)
            waiting += [target for _, target in edges(part.steps[name])]
    return [
        FieldError(step.where, f"step {name!r} is never reached")
        for name, step in part.steps.items()
        if name not in seen
    ]


def _busy_cycles(part: StepList) -> list[FieldError]:
    """A circle without a step that lets time pass would run for ever at full speed. Named once, where it closes."""
    busy = {name for name, step in part.steps.items() if not step.kind.pauses and not unread(step)}
    found: list[FieldError] = []
    done: set[str] = set()
    for start in part.steps:
        if start in busy and start not in done:
            found += _circles_from(part, start, busy, done)
    return found


def _circles_from(part: StepList, start: str, busy: set[str], done: set[str]) -> list[FieldError]:
    found: list[FieldError] = []
    on_path: list[str] = [start]
    ways = [iter(edges(part.steps[start]))]
    while ways:
        for path, target in ways[-1]:
            if target not in busy or target in done:
                continue
            if target in on_path:
                circle = " → ".join([*on_path[on_path.index(target) :], target])
                found.append(FieldError(path, f"closes a cycle without a wait or a bound: {circle}"))
                continue
            on_path.append(target)
            ways.append(iter(edges(part.steps[target])))
            break
        else:
            ways.pop()
            done.add(on_path.pop())
    return found
