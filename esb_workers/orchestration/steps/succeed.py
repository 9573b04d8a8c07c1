"""`succeed`: ends the run, or the branch, item or round it stands in."""

from __future__ import annotations

from typing import Any, NamedTuple

from esb_workers.orchestration.model import Evaluate
from esb_workers.orchestration.steps.base import At, Call, Completed, Config, Outcome, StepType


class SucceedConfig(Config):
    """`config` of a succeed step."""

    output: Any = None


class _Compiled(NamedTuple):
    output: Evaluate | None


class Succeed(StepType):
    """Its output, if it names one, is that of what it ends."""

    Config = SucceedConfig
    ends = True

    def compile(self, config: SucceedConfig, at: At) -> _Compiled:
        named = "output" in config.model_fields_set
        return _Compiled(at.template(config.output, "output") if named else None)

    def run(self, call: Call) -> Outcome:
        output = call.config.output
        value = output(call.names) if output else None
        return Completed(value, next=None, final=True, without_output=output is None)
