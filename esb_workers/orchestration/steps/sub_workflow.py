"""`sub_workflow`: starts a run of another workflow, and waits for it unless told not to."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple, Self

from pydantic import ConfigDict, Field, model_validator

from esb_workers.orchestration.failures import CANCELLED, TIMEOUT, VALIDATION_ERROR, Failure, StepFailed
from esb_workers.orchestration.model import Evaluate
from esb_workers.orchestration.steps.base import (
    At,
    Call,
    Completed,
    Config,
    Failed,
    Mention,
    Outcome,
    StepType,
    Waiting,
)
from esb_workers.orchestration.steps.fields import NAME, RESULT_PATH


class SubWorkflowConfig(Config):
    """`config` of a sub_workflow step."""

    model_config = ConfigDict(
        json_schema_extra={"oneOf": [{"required": ["workflowName"]}, {"required": ["workflowId"]}]}
    )

    workflow_name: NAME | None = None
    version: str | None = Field(None, max_length=100)
    workflow_id: str | None = Field(None, max_length=100)
    input: Any = Field({}, description="Template of the initial context, an object.")
    wait: bool = True
    result_path: RESULT_PATH = None

    @model_validator(mode="after")
    def _one(self) -> Self:
        if (self.workflow_name is None) == (self.workflow_id is None):
            raise ValueError("needs either workflowName or workflowId")
        if self.version is not None and self.workflow_name is None:
            raise ValueError("version goes with workflowName")
        return self


class _Compiled(NamedTuple):
    workflow: dict[str, str]
    input: Evaluate
    wait: bool
    result_path: str | None


class SubWorkflow(StepType):
    """The child keeps the client and the correlation id. Its failure is this step's."""

    Config = SubWorkflowConfig
    effect = True
    pauses = False
    wants_id = True

    def compile(self, config: SubWorkflowConfig, at: At) -> _Compiled:
        named = {"workflowName": config.workflow_name, "version": config.version, "workflowId": config.workflow_id}
        workflow = {key: value for key, value in named.items() if value is not None}
        return _Compiled(workflow, at.template(config.input, "input"), config.wait, config.result_path)

    def mentions(self, config: _Compiled) -> Iterable[Mention]:
        if (name := config.workflow.get("workflowName")) is not None:
            yield Mention("workflowName", "workflow", name, config.workflow.get("version"))

    def prepare(self, call: Call) -> Any:
        given = call.config.input(call.names)
        if not isinstance(given, dict):
            raise StepFailed(Failure(VALIDATION_ERROR, f"input is no object but {type(given).__name__}"))
        return given

    def run(self, call: Call) -> Outcome:
        config: _Compiled = call.config
        if call.memo is None:
            call.world.start(config.workflow, call.fresh_id, call.input, wait=config.wait)
        child_id = call.memo["child"] if call.memo else call.fresh_id
        if not config.wait:
            return Completed({"executionId": child_id}, at=config.result_path)
        child = call.world.child(child_id)
        if child.status in ("open", "paused"):
            return Waiting("child", None, {"child": child_id})
        if child.status == "completed":
            return Completed(child.output, at=config.result_path)
        return Failed(_failure(child_id, child.status, dict(child.error or {})))


def _failure(child_id: str, status: str, error: dict[str, Any]) -> Failure:
    known = {"cancelled": CANCELLED, "timed_out": TIMEOUT}.get(status)
    error_class = known or str(error.get("class", "Failed"))
    message = str(error.get("message") or f"the run {child_id} ended as {status}")
    return Failure(error_class, message, retryable=True, details={"executionId": child_id, "cause": error or None})
