"""`set`: writes names of the context."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from esb_workers.orchestration.model import Evaluate
from esb_workers.orchestration.steps.base import At, Call, Completed, Config, Outcome, StepType


class SetConfig(Config):
    """`config` of a set step."""

    variables: dict[str, Any] = Field(min_length=1, description="Name → template of its new value.")


class Set(StepType):
    """All values are computed before the first is written: names can be swapped."""

    Config = SetConfig
    compensates = True

    def compile(self, config: SetConfig, at: At) -> Evaluate:
        return at.template(config.variables, "variables")

    def run(self, call: Call) -> Outcome:
        values = call.config(call.names)
        return Completed(values, names=values)
