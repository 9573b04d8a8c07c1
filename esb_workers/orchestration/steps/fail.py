"""`fail`: ends its path with an error of the author's own class."""

from __future__ import annotations

from typing import NamedTuple

from pydantic import Field

from esb_workers.orchestration.failures import Failure
from esb_workers.orchestration.model import Evaluate
from esb_workers.orchestration.steps.base import At, Call, Config, Failed, Outcome, StepType


class FailConfig(Config):
    """`config` of a fail step."""

    error: str = Field("Failed", min_length=1, max_length=100, pattern=r"^\S+$", description="Class of the error.")
    message: str = Field("", max_length=10_000)


class _Compiled(NamedTuple):
    error: str
    message: Evaluate


class Fail(StepType):
    """Never retried: it would fail again."""

    Config = FailConfig
    ends = True

    def compile(self, config: FailConfig, at: At) -> _Compiled:
        return _Compiled(config.error, at.template(config.message, "message"))

    def run(self, call: Call) -> Outcome:
        message = call.config.message(call.names)
        return Failed(Failure(call.config.error, message if isinstance(message, str) else str(message)))
