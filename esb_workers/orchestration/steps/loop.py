"""`loop`: rounds of steps on the surrounding context, while or until a CEL condition holds."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple, Self

from pydantic import ConfigDict, Field, model_validator

from esb_workers.orchestration.failures import LOOP_LIMIT, Failure
from esb_workers.orchestration.model import Evaluate, StepList
from esb_workers.orchestration.steps.base import At, Call, Completed, Config, Failed, Outcome, Round, StepType
from esb_workers.orchestration.steps.switch import truth


class LoopConfig(Config):
    """`config` of a loop step: `while` or `until`."""

    model_config = ConfigDict(json_schema_extra={"oneOf": [{"required": ["while"]}, {"required": ["until"]}]})

    while_: str | None = Field(None, alias="while", min_length=1, max_length=10_000)
    until: str | None = Field(None, min_length=1, max_length=10_000)
    max_iterations: int = Field(1000, ge=1, le=1_000_000)
    steps: list[Any] = Field(min_length=1, max_length=1000)

    @model_validator(mode="after")
    def _one(self) -> Self:
        if (self.while_ is None) == (self.until is None):
            raise ValueError("needs either while or until")
        return self


class _Compiled(NamedTuple):
    while_: Evaluate | None
    until: Evaluate | None
    bound: int
    steps: StepList


class Loop(StepType):
    """`while` is tested before a round, `until` after one. Its output is that of the last round."""

    Config = LoopConfig

    def compile(self, config: LoopConfig, at: At) -> _Compiled:
        return _Compiled(
            None if config.while_ is None else at.expression(config.while_, "while"),
            None if config.until is None else at.expression(config.until, "until"),
            config.max_iterations,
            at.steps(config.steps, "steps"),
        )

    def lists(self, config: _Compiled) -> Iterable[StepList]:
        return (config.steps,)

    def run(self, call: Call) -> Outcome:
        config: _Compiled = call.config
        number = 0 if call.memo is None else call.memo["round"] + 1
        if number and config.until is not None and truth(config.until, call, "until"):
            return Completed(call.last)
        if config.while_ is not None and not truth(config.while_, call, "while"):
            return Completed(call.last)
        if number >= config.bound:
            return Failed(Failure(LOOP_LIMIT, f"the bound of {config.bound} rounds is reached"))
        return Round(number, config.steps.first)
