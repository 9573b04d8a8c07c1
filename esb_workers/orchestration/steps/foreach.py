"""`foreach`: the same steps for every item, some of them at a time, each on a copy of the context.

Not a strand for each item but a few runners that take ranges of indexes: ten thousand items cost no ten thousand
jobs, and the limit on concurrency is the number of runners.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any, NamedTuple

from pydantic import Field, WithJsonSchema, field_validator

from esb_workers.orchestration.failures import TOLERANCE_EXCEEDED, VALIDATION_ERROR, Failure, StepFailed
from esb_workers.orchestration.model import Evaluate, StepList
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
from esb_workers.orchestration.steps.fields import RESULT_PATH
from esb_workers.orchestration.world import ForkView

MAX_ITEMS = 100_000
_IDENTIFIER = r"^[A-Za-z_][A-Za-z0-9_]{0,99}$"


class ForEachConfig(Config):
    """`config` of a foreach step."""

    items: Annotated[Any, WithJsonSchema({"anyOf": [{"type": "array"}, {"type": "string", "pattern": r"\$\{"}]})] = (
        Field(description="Template of a list.")
    )
    item_variable: str = Field("item", pattern=_IDENTIFIER)
    index_variable: str = Field("index", pattern=_IDENTIFIER)
    steps: list[Any] = Field(min_length=1, max_length=1000)
    max_concurrency: int = Field(1, ge=1, le=100)
    tolerated_failures: Annotated[
        Any,
        WithJsonSchema({"anyOf": [{"type": "integer", "minimum": 0}, {"type": "string", "pattern": "^[0-9]{1,3}%$"}]}),
    ] = Field(0, description='How many items may fail: a count, or "10%".')
    result_path: RESULT_PATH = None

    @field_validator("items")
    @classmethod
    def _items(cls, value: Any) -> Any:
        if not isinstance(value, list) and not (isinstance(value, str) and "${" in value):
            raise ValueError("must be a list or a template of one")
        return value

    @field_validator("tolerated_failures")
    @classmethod
    def _tolerated(cls, value: Any) -> Any:
        if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
            return value
        if isinstance(value, str) and value.endswith("%") and value[:-1].isdecimal() and int(value[:-1]) <= 100:
            return value
        raise ValueError('must be a count from 0, or a percentage such as "10%"')


class _Compiled(NamedTuple):
    items: Evaluate
    item: str
    index_name: str
    steps: StepList
    runners: int
    tolerated: int | str
    result_path: str | None


class ForEach(StepType):
    """Its output is the list of what the items put out, in their order."""

    Config = ForEachConfig

    def compile(self, config: ForEachConfig, at: At) -> _Compiled:
        return _Compiled(
            at.template(config.items, "items"),
            config.item_variable,
            config.index_variable,
            at.steps(config.steps, "steps"),
            config.max_concurrency,
            config.tolerated_failures,
            config.result_path,
        )

    def lists(self, config: _Compiled) -> Iterable[StepList]:
        return (config.steps,)

    def run(self, call: Call) -> Outcome:
        config: _Compiled = call.config
        if call.memo is None:
            return self._begin(call)
        fork = call.world.fork(call.path, call.memo["fork"])
        if not fork.closed:
            return Waiting("children", None, call.memo)
        if fork.failed > fork.tolerated:
            call.world.cull(call.path, call.memo["fork"])
            return Failed(_exceeded(fork))
        output = [ending.output if ending.ok else {"error": ending.error} for ending in fork.endings]
        return Completed(output, at=config.result_path)

    def _begin(self, call: Call) -> Outcome:
        config: _Compiled = call.config
        items = config.items(call.names)
        if not isinstance(items, list):
            raise StepFailed(Failure(VALIDATION_ERROR, f"items is no list but {type(items).__name__}"))
        if len(items) > MAX_ITEMS:
            raise StepFailed(Failure(VALIDATION_ERROR, f"{len(items)} items are over the limit of {MAX_ITEMS}"))
        if not items:
            return Completed([], at=config.result_path)
        kids = [Kid(i, config.steps.first, call.path, runner=True) for i in range(min(config.runners, len(items)))]
        return Fork(
            kids,
            len(kids),
            tolerated(config.tolerated, len(items)),
            len(items),
            items,
            (config.item, config.index_name),
        )


def tolerated(wanted: int | str, total: int) -> int:
    """How many of `total` items may fail; a percentage is rounded down."""
    return wanted if isinstance(wanted, int) else total * int(wanted[:-1]) // 100


def _exceeded(fork: ForkView) -> Failure:
    cause = next((ending.error for ending in fork.endings if not ending.ok), None)
    told = f"{fork.failed} items failed, {fork.tolerated} are tolerated"
    return Failure(TOLERANCE_EXCEEDED, told, retryable=True, details={"cause": cause})
