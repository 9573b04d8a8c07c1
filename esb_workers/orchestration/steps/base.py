"""What a step type is: how it reads its `config`, and what one visit of such a step does.

A type says by its outcome what is to happen; the engine journals it and does it. A step that waits is called
again, later and perhaps in another process, with the `memo` it left: it must be able to go on from that alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple, Protocol

from pydantic import BaseModel, ConfigDict
from pydantic.alias_generators import to_camel

from esb_workers.errors import FieldError
from esb_workers.orchestration.failures import Failure
from esb_workers.orchestration.model import Evaluate, Names, Step, StepList

if TYPE_CHECKING:
    from esb_workers.orchestration.world import World


class Config(BaseModel):
    """Base of the models of `config`: camelCase names, no unknown ones, no guessing of types."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, alias_generator=to_camel)


class At(Protocol):
    """The place of a `config` in a definition, for compiling what it holds. Faults are collected, not raised."""

    def template(self, value: Any, path: str) -> Evaluate:
        """Compile a JSON value with `${…}` in it."""

    def url_text(self, value: str, path: str) -> Evaluate:
        """Compile a string of a URL's path: values in it are percent-encoded."""

    def expression(self, text: str, path: str) -> Evaluate:
        """Compile a CEL expression."""

    def steps(self, raw: Sequence[Any], path: str) -> StepList:
        """Compile a list of steps of its own."""

    def fault(self, path: str, message: str) -> None:
        """Name a fault of the author's."""


# --- outcomes ----------------------------------------------------------------------------------------


class _Onward:
    """Stands for "wherever the step's `next` is"."""


ONWARD = _Onward()


@dataclass(frozen=True, slots=True)
class Completed:
    """Done. `merge`: an object is laid over the context; `at`: set at that path; `names`: set in the context."""

    output: Any = None
    merge: bool = False
    at: str | None = None
    names: Mapping[str, Any] = field(default_factory=dict)
    next: str | _Onward | None = ONWARD
    final: bool = False  # ends the run, branch, item or round
    without_output: bool = False  # a `succeed` that names none


@dataclass(frozen=True, slots=True)
class Failed:
    """Not done; retried as its policy says. `error`: passed through unchanged, instead of one made of `failure`."""

    failure: Failure


@dataclass(frozen=True, slots=True)
class Waiting:
    """Go on at `until`, or when woken (None). `signal`: the name whose arrival wakes it."""

    reason: str
    until: datetime | None = None
    memo: Mapping[str, Any] = field(default_factory=dict)
    signal: str | None = None


@dataclass(frozen=True, slots=True)
class Kid:
    """A child strand: the first step of its list, the prefix of its paths, its loop variables, its index."""

    index: int
    step: str
    prefix: str
    names: Mapping[str, Any] = field(default_factory=dict)
    runner: bool = False


@dataclass(frozen=True, slots=True)
class Fork:
    """Go on when `need` of the children have succeeded, or no longer can. `seed` is added to what they start from."""

    kids: Sequence[Kid]
    need: int
    tolerated: int = 0
    total: int | None = None
    items: Sequence[Any] | None = None
    variables: tuple[str, str] = ("item", "index")


@dataclass(frozen=True, slots=True)
class Round:
    """A loop's next round, starting at `step`."""

    number: int
    step: str


Outcome = Completed | Failed | Waiting | Fork | Round


@dataclass(slots=True)
class Call:
    """One attempt at a step."""

    step: Step
    path: str
    visit: int
    iteration: int  # how often this step was visited before in its place
    attempt: int
    names: Names
    now: datetime
    world: World
    execution_id: str
    memo: Mapping[str, Any] | None = None
    input: Any = None
    fresh_id: str = ""
    last: Any = None  # a loop: the output of the round that has just ended

    @property
    def config(self) -> Any:
        """What the type's `compile` made."""
        return self.step.config

    @property
    def idempotency_key(self) -> str:
        """Stable over retries and crashes, another for another visit of the step."""
        key = f"{self.execution_id}:{self.path}"
        return f"{key}:{self.iteration}" if self.iteration else key


class Mention(NamedTuple):
    """Something that a config names and that may not be registered: (path in config, what, name, version)."""

    path: str
    what: Literal["service", "workflow"]
    name: str
    version: str | None = None


class StepType:
    """Base of all step types. One object per type, shared by all threads: it holds nothing of a run."""

    #: The model that `config` must fit.
    Config: ClassVar[type[Config]] = Config
    #: Acts on the world: that an attempt begins is journaled before it does. Others are recomputed after a crash.
    effect: ClassVar[bool] = False
    #: Lets time pass, so that a cycle through it is no busy loop.
    pauses: ClassVar[bool] = False
    #: Ends its path whatever `onSuccess` says.
    ends: ClassVar[bool] = False
    #: Wants an id made and journaled before the attempt: `call.fresh_id`, the same again after a crash.
    wants_id: ClassVar[bool] = False
    #: The queue whose workers alone run it; None: any orchestration worker.
    queue: str | None = None
    #: How long an attempt may take where the step names no timeout, milliseconds; what is longer is taken for lost.
    longest: int = 60_000
    #: May be the `compensate` of a step.
    compensates: ClassVar[bool] = False

    def compile(self, config: Any, at: At) -> Any:
        """Compile the templates and lists in a config; what it answers is `call.config`."""
        return config

    def lists(self, config: Any) -> Iterable[StepList]:
        """The lists of steps inside a compiled config."""
        return ()

    def patience(self, call: Call) -> int:
        """How long this attempt may take before it is taken for lost, milliseconds."""
        return call.step.timeout or self.longest

    def jumps(self, config: Any) -> Iterable[tuple[str, str]]:
        """Targets named in a compiled config: (path in config, step id)."""
        return ()

    def label(self, config: Any, path: str) -> str | None:
        """What a picture writes at the jump of this path in a compiled config; None: the field's name."""
        return None

    def list_names(self, config: Any) -> Iterable[str | None]:
        """The names of `lists`, where they have any."""
        return (None for _ in self.lists(config))

    def called_back(self, config: Any) -> bool:
        """Whether a step of this compiled config (None: it could not be read) may be answered by a callback."""
        return False

    def mentions(self, config: Any) -> Iterable[Mention]:
        """The services and workflows that a compiled config names as they are, not by a template."""
        return ()

    def falls_through(self, config: Any) -> bool:
        """Whether success may lead to the step's own `next`."""
        return not self.ends

    def prepare(self, call: Call) -> Any:
        """The input of an attempt, as it is shown; computed from the context alone. May raise StepFailed."""
        return None

    def run(self, call: Call) -> Outcome:
        """One attempt, or its continuation. May raise StepFailed."""
        raise NotImplementedError


__all__ = [
    "ONWARD",
    "At",
    "Call",
    "Completed",
    "Config",
    "Failed",
    "FieldError",
    "Fork",
    "Kid",
    "Mention",
    "Outcome",
    "Round",
    "StepType",
    "Waiting",
]
