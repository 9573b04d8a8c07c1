"""`parallel`: branches that run at the same time, each on a copy of the context, joined by count."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any, NamedTuple

from pydantic import Field, WithJsonSchema, field_validator

from esb_workers.orchestration.failures import Failure
from esb_workers.orchestration.model import StepList
from esb_workers.orchestration.steps.base import (
    At,
    Call,
    Completed,
    Config,
    Failed,
    Fork,
    Kid,
    Outcome,
    StepType,
    Waiting,
)
from esb_workers.orchestration.steps.fields import NAME, RESULT_PATH


class Branch(Config):
    """One branch; its list is sequential."""

    name: NAME
    steps: list[Any] = Field(min_length=1, max_length=1000)


class ParallelConfig(Config):
    """`config` of a parallel step."""

    branches: list[Branch] = Field(min_length=1, max_length=100)
    join: Annotated[Any, WithJsonSchema({"anyOf": [{"enum": ["all", "any"]}, {"type": "integer", "minimum": 1}]})] = (
        Field("all", description='"all", "any", or how many must succeed.')
    )
    result_path: RESULT_PATH = None

    @field_validator("join")
    @classmethod
    def _join(cls, value: Any) -> Any:
        number = isinstance(value, int) and not isinstance(value, bool) and value >= 1
        if value not in ("all", "any") and not number:
            raise ValueError('must be "all", "any" or a number from 1')
        return value


class _Compiled(NamedTuple):
    branches: tuple[tuple[str, StepList], ...]
    need: int
    result_path: str | None


class Parallel(StepType):
    """Done when enough branches have succeeded; failed once that can no longer happen."""

    Config = ParallelConfig

    def compile(self, config: ParallelConfig, at: At) -> _Compiled:
        names = [branch.name for branch in config.branches]
        for index, name in enumerate(names):
            if name in names[:index]:
                at.fault(f"branches[{index}].name", f"another branch is named {name!r}")
        need = {"all": len(names), "any": 1}.get(config.join, config.join)
        if need > len(names):
            at.fault("join", f"there are only {len(names)} branches")
        lists = (at.steps(branch.steps, f"branches[{i}].steps") for i, branch in enumerate(config.branches))
        return _Compiled(tuple(zip(names, lists, strict=True)), need, config.result_path)

    def lists(self, config: _Compiled) -> Iterable[StepList]:
        return (part for _, part in config.branches)

    def list_names(self, config: _Compiled) -> Iterable[str | None]:
        return (name for name, _ in config.branches)

    def run(self, call: Call) -> Outcome:
        config: _Compiled = call.config
        if call.memo is None:
            kids = [Kid(i, part.first, f"{call.path}[{name}]/") for i, (name, part) in enumerate(config.branches)]
            return Fork(kids, config.need)
        fork = call.world.fork(call.path, call.memo["fork"])
        if not fork.closed:
            return Waiting("children", None, call.memo)
        if fork.open:
            call.world.cull(call.path, call.memo["fork"])
        good = {ending.index: ending.output for ending in fork.endings if ending.ok}
        if len(good) >= config.need:
            output = {name: good[i] for i, (name, _) in enumerate(config.branches) if i in good}
            return Completed(output, at=config.result_path)
        bad = next(ending.error or {} for ending in fork.endings if not ending.ok)
        return Failed(Failure.of(bad, retryable=True))
