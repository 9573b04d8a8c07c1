"""A definition that has passed all checks, compiled: what the engine walks."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from esb_workers.expressions.schemas import Schema
from esb_workers.registry.retries import RetryPolicy

if TYPE_CHECKING:
    from esb_workers.orchestration.steps.base import StepType

#: Tried once: what a step without any policy gets.
ONCE = RetryPolicy(max_retries=0)

Names = Mapping[str, Any]
#: A compiled template or expression: give it the names in scope. Raises StepFailed (ExpressionError).
Evaluate = Callable[[Names], Any]


@dataclass(frozen=True, slots=True)
class Catch:
    """Errors of these classes go on at `next`, the error put at `result_path`."""

    errors: tuple[str, ...]
    next: str
    result_path: str | None


@dataclass(slots=True)
class StepList:
    """A list of steps in which jumps stay. `sequential`: its order is the flow."""

    where: str
    sequential: bool
    steps: dict[str, Step] = field(default_factory=dict)

    @property
    def first(self) -> str:
        """The id of the step that starts the list."""
        return next(iter(self.steps))


@dataclass(slots=True)
class Step:
    """One step. `config` is whatever its type compiled; `following` is the next in a sequential list."""

    id: str
    type: str
    kind: StepType
    where: str
    name: str | None = None
    config: Any = None
    on_success: str | None = None
    on_failure: str | None = None
    following: str | None = None
    catches: tuple[Catch, ...] = ()
    retry: RetryPolicy | None = None
    timeout: int | None = None  # ms, of one attempt
    condition: Evaluate | None = None
    compensate: Step | None = None
    lists: tuple[StepList, ...] = ()

    @property
    def next(self) -> str | None:
        """Where success leads: the named step, the next in a sequential list, or nowhere."""
        return self.on_success or self.following


@dataclass(frozen=True, slots=True)
class Concurrency:
    """How many runs with the same key (None: of the workflow) may be under way, and what becomes of one too many."""

    key: Evaluate | None
    limit: int
    on_limit: str


@dataclass(slots=True)
class Program:
    """A whole definition. `steps` holds those of every list, by id: ids are unique in a definition."""

    top: StepList
    steps: dict[str, Step]
    variables: Mapping[str, Any] = field(default_factory=dict)
    on_error: str = "fail"
    pauses_exhausted: bool = False  # instead of failing when retries are used up
    retry: RetryPolicy | None = None
    timeout: int | None = None  # ms, of the run
    relaxed: bool = False  # its effects may go ahead of its journal a little: see `durability`
    #: Step → the `wait_for_signal` steps with a callback in its list, itself included.
    callbacks: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    output: Evaluate | None = None
    input_schema: Schema | None = None
    output_schema: Schema | None = None
    concurrency: Concurrency | None = None
    rate: float | None = None  # starts a second

    def policy(self, step: Step) -> RetryPolicy:
        """A step's own retry policy, else the definition's, else none.

        A step made of steps does not inherit: its parts have been retried already.
        """
        return step.retry or (None if step.lists else self.retry) or ONCE
