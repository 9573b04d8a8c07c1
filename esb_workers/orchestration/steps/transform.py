"""`transform`: a template whose value is merged into the context, or put at `resultPath`."""

from __future__ import annotations

from typing import Any, NamedTuple

from pydantic import Field

from esb_workers.orchestration.model import Evaluate
from esb_workers.orchestration.steps.base import At, Call, Completed, Config, Outcome, StepType
from esb_workers.orchestration.steps.fields import RESULT_PATH


class TransformConfig(Config):
    """`config` of a transform step."""

    output: Any = Field(description="Template of the output.")
    result_path: RESULT_PATH = None


class _Compiled(NamedTuple):
    output: Evaluate
    result_path: str | None


class Transform(StepType):
    """Computes; touches nothing but the context."""

    Config = TransformConfig
    compensates = True

    def compile(self, config: TransformConfig, at: At) -> _Compiled:
        return _Compiled(at.template(config.output, "output"), config.result_path)

    def run(self, call: Call) -> Outcome:
        output = call.config.output(call.names)
        at = call.config.result_path
        return Completed(output, merge=at is None and isinstance(output, dict), at=at)
