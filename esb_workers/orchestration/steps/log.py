"""`log`: one line in the bus's own log, and an entry in the history."""

from __future__ import annotations

from typing import Literal, NamedTuple

from pydantic import Field

from esb_workers.orchestration.model import Evaluate
from esb_workers.orchestration.steps.base import At, Call, Completed, Config, Outcome, StepType


class LogConfig(Config):
    """`config` of a log step."""

    message: str = Field(max_length=10_000)
    level: Literal["debug", "info", "warning", "error"] = "info"


class _Compiled(NamedTuple):
    message: Evaluate
    level: str


class Log(StepType):
    """Not an effect: after a crash a line may be written twice, which harms nobody."""

    Config = LogConfig
    compensates = True

    def compile(self, config: LogConfig, at: At) -> _Compiled:
        return _Compiled(at.template(config.message, "message"), config.level)

    def run(self, call: Call) -> Outcome:
        message = call.config.message(call.names)
        call.world.log(call.config.level, message, call.path)
        return Completed({"message": message})
