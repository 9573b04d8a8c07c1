"""`log`: one line in the bus's own log, and an entry in the history."""

from __future__ import annotations

import logging
from typing import Literal, NamedTuple

from pydantic import Field

from esb_workers.orchestration.model import Evaluate
from esb_workers.orchestration.steps.base import At, Call, Completed, Config, Outcome, StepType

_log = logging.getLogger("esb.workflow")
_LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}


class LogConfig(Config):
    """`config` of a log step."""

    message: str = Field(max_length=10_000)
    level: Literal["debug", "info", "warning", "error"] = "info"


class _Compiled(NamedTuple):
    message: Evaluate
    level: int


class Log(StepType):
    """Not an effect: after a crash a line may be written twice, which harms nobody."""

    Config = LogConfig
    compensates = True

    def compile(self, config: LogConfig, at: At) -> _Compiled:
        return _Compiled(at.template(config.message, "message"), _LEVELS[config.level])

    def run(self, call: Call) -> Outcome:
        message = call.config.message(call.names)
        _log.log(call.config.level, "%s", message, extra={"execution_id": call.execution_id, "step": call.path})
        return Completed({"message": message})
