"""Workflows and their executions."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import ConfigDict, Field, WithJsonSchema, model_validator

from esb_api.params import PageQuery
from esb_api.schemas.base import Answer, Body, Query
from esb_api.schemas.problem import FieldProblem
from esb_api.schemas.types import COMMAS, Moment, Name, Visible, Words
from esb_workers.orchestration.steps import step_types

ExecutionStatus = Literal[
    "pending", "running", "waiting", "paused", "completed", "failed", "cancelled", "compensated", "timed_out"
]
StepStatus = Literal[
    "pending", "running", "retrying", "waiting", "completed", "failed", "skipped", "cancelled", "compensated"
]

_STEP: dict[str, Any] = {
    "type": "object",
    "required": ["id", "type"],
    "properties": {
        "id": {"type": "string", "description": "Unique in the whole definition."},
        "name": {"type": "string"},
        "type": {"type": "string", "examples": sorted(step_types())},
        "config": {"type": "object", "description": "What its type needs."},
        "onSuccess": {"type": "string", "description": "Step that follows."},
        "onFailure": {"type": "string"},
        "catch": {"type": "array", "items": {"type": "object"}},
        "retryPolicy": {"type": "object"},
        "timeout": {"type": "integer", "description": "Milliseconds, of one attempt."},
        "condition": {"type": "string", "description": "CEL; false skips the step."},
        "compensate": {"type": "object", "description": "A step that undoes this one."},
    },
}
_DEFINITION: dict[str, Any] = {
    "type": "object",
    "required": ["steps"],
    "properties": {
        "steps": {"type": "array", "minItems": 1, "items": _STEP},
        "variables": {"type": "object", "description": "Defaults, laid under the initial context."},
        "errorHandling": {
            "type": "object",
            "properties": {
                "retryPolicy": {"type": "object"},
                "onError": {"type": "string", "description": "log-error, fail, continue, compensate, or a step id."},
                "onExhausted": {
                    "enum": ["fail", "pause"],
                    "description": "pause: when a step's retries are used up, the run is paused instead of failing.",
                },
            },
        },
        "timeout": {"type": "integer", "description": "Milliseconds, of the whole run, pauses excluded."},
        "durability": {
            "enum": ["strict", "relaxed"],
            "description": "relaxed: quick steps are journaled several at a time; a crash may have the last repeated.",
        },
        "flow": {"enum": ["explicit", "sequential"]},
        "inputSchema": {"type": "object"},
        "outputSchema": {"type": "object"},
        "output": {"description": "Template of the run's output."},
        "concurrency": {
            "type": "object",
            "required": ["limit"],
            "properties": {
                "key": {"type": "string", "description": "CEL; runs of the same value count together."},
                "limit": {"type": "integer", "minimum": 1},
                "onLimit": {"enum": ["queue", "reject", "cancel_oldest"]},
            },
        },
        "ratePerSecond": {"type": "number", "description": "Starts a second; what comes sooner waits its turn."},
    },
}

#: Checked by the compiler of definitions, which names every fault at once.
Definition = Annotated[Any, WithJsonSchema(_DEFINITION)]


class WorkflowBody(Body):
    """A version of a workflow. It never changes: a change is a new version."""

    name: Name
    version: Annotated[str, Field(min_length=1, max_length=100, description="SemVer.", examples=["1.0.0"])]
    description: Annotated[str | None, Field(max_length=10_000)] = None
    definition: Definition


class DraftBody(Body):
    """A workflow, or just its definition, to be checked."""

    name: Name | None = None
    version: Annotated[str | None, Field(min_length=1, max_length=100)] = None
    description: Annotated[str | None, Field(max_length=10_000)] = None
    definition: Definition


class WorkflowAnswer(Answer):
    """A version of a workflow."""

    id: str
    name: str
    version: str
    description: str | None
    definition: Annotated[Any, Field(description="As it was sent.")]
    created_at: Moment
    updated_at: Moment


class KeptWorkflow(WorkflowAnswer):
    """A new version of a workflow."""

    warnings: Annotated[list[FieldProblem], Field(description="Services and workflows that are not there yet.")]


class WorkflowSummary(Answer):
    """What a client sees of a workflow."""

    id: str
    name: str
    version: str
    description: str | None
    input_schema: Any = None
    output_schema: Any = None
    created_at: Moment
    updated_at: Moment


class WorkflowPage(Answer):
    """Workflows, newest first. A client sees no definitions, but the schemas."""

    items: list[WorkflowAnswer | WorkflowSummary]
    next_cursor: str | None


class WorkflowQuery(PageQuery):
    """Filters of the list of workflows."""

    name: Annotated[str | None, Field(max_length=100)] = None
    version: Annotated[str | None, Field(max_length=100)] = None


class CheckAnswer(Answer):
    """What a dry check found."""

    valid: bool
    errors: list[FieldProblem]
    warnings: Annotated[list[FieldProblem], Field(description="Services and workflows that are not there yet.")]


class GraphQuery(Query):
    """The form of the picture."""

    format: Annotated[
        Literal["json", "mermaid", "svg"] | None, Field(description="Default: what `Accept` asks for, else `json`.")
    ] = None


class GraphNode(Answer):
    """A step. `parent` is the step whose list it stands in."""

    id: str
    name: str | None
    type: str
    parent: str | None
    list: Annotated[str | None, Field(description="The branch that it stands in.")]
    status: Annotated[StepStatus | None, Field(description="Of a run: the most telling of its visits.")] = None
    visits: Annotated[dict[str, int] | None, Field(description="Of a run: how many stand in each state.")] = None


class GraphEdge(Answer):
    """A way from step to step."""

    from_: Annotated[str | None, Field(alias="from", description="Null: from anywhere.")]
    to: str
    kind: str
    label: str | None


class GraphAnswer(Answer):
    """A definition, or a run of it, as nodes and edges."""

    nodes: list[GraphNode]
    edges: list[GraphEdge]


class ExecuteBody(Body):
    """A run to be started: of a workflow by id, or by name and perhaps version."""

    workflow_id: str | None = None
    workflow_name: Name | None = None
    version: Annotated[str | None, Field(min_length=1, max_length=100, description="Default: the highest.")] = None
    initial_context: Annotated[dict[str, Any], Field(description="Laid over the definition's variables.")] = {}
    correlation_id: Annotated[Visible | None, Field(description="Default: `X-Correlation-ID`, else a new UUID.")] = None
    business_key: Annotated[
        str | None, Field(min_length=1, max_length=255, description="One open run per workflow name and key.")
    ] = None
    business_key_reuse: Annotated[
        Literal["allow_after_end", "reject", "return_existing"],
        Field(
            description="What a key that is not new means. `allow_after_end`: 409 while a run with it is open."
            " `reject`: 409 if there ever was one. `return_existing`: 200 with the latest one, open or ended."
        ),
    ] = "allow_after_end"
    priority: Annotated[int, Field(ge=0, le=9, description="9 goes first.")] = 5

    @model_validator(mode="after")
    def _one_workflow(self) -> Self:
        if (self.workflow_id is None) == (self.workflow_name is None):
            raise ValueError("needs either workflowId or workflowName")
        if self.version is not None and self.workflow_name is None:
            raise ValueError("version goes with workflowName")
        if "business_key_reuse" in self.model_fields_set and self.business_key is None:
            raise ValueError("businessKeyReuse goes with businessKey")
        return self


class StartedAnswer(Answer):
    """The run is stored: it will be carried out whatever happens to the processes."""

    execution_id: str
    correlation_id: str
    status: Literal["pending"] = "pending"


class StepAnswer(Answer):
    """One visit of a step."""

    id: str
    path: Annotated[str, Field(description="`f[3]/q`: step q of item 3 of the foreach f.")]
    type: str | None
    name: str | None
    status: StepStatus
    attempts: int
    input: Any
    output: Any
    error: Any
    waiting_for: Annotated[
        str | None, Field(description="timer, signal, children, child, delivery, service:REASON.")
    ] = None
    next_attempt_at: Annotated[str | None, Field(description="When it goes on by itself.")] = None
    started_at: Moment | None
    finished_at: Moment | None


class ListedExecution(Answer):
    """A run."""

    id: str
    execution_id: str
    workflow_id: str
    workflow_name: str
    workflow_version: str
    status: ExecutionStatus
    correlation_id: str
    business_key: str | None
    priority: int
    parent_id: Annotated[str | None, Field(description="The run a step of which started this one.")]
    schedule_id: Annotated[str | None, Field(description="The schedule that started it.")]
    scheduled_for: Annotated[Moment | None, Field(description="The due time that it was started for.")]
    client_id: Annotated[str | None, Field(description="Null: the operator.")]
    error: Any
    created_at: Moment
    started_at: Moment | None
    updated_at: Moment
    finished_at: Moment | None


class ExecutionAnswer(ListedExecution):
    """A run with its context, its output, and its newest 200 steps in order."""

    initial_context: dict[str, Any]
    context: Any
    output: Any
    reason: Annotated[str | None, Field(description="Why it was cancelled.")]
    deadline: Moment | None
    steps: list[StepAnswer]


class ExecutionPage(Answer):
    """Runs, newest first."""

    items: list[ListedExecution]
    next_cursor: str | None


class ExecutionQuery(PageQuery):
    """Filters of the list of runs. Lists are comma lists."""

    workflow_id: Words | None = None
    workflow_name: Words | None = None
    status: Annotated[list[ExecutionStatus], COMMAS] | None = None
    error_class: Annotated[
        Words | None, Field(description="Of runs that failed: `Timeout`, `HttpStatus.503`, `HttpStatus.5xx` …")
    ] = None
    correlation_id: Words | None = None
    business_key: Words | None = None
    client_id: Words | None = None
    from_: Annotated[Moment | None, Field(alias="from", description="Started then or later.")] = None
    to: Annotated[Moment | None, Field(description="Started before.")] = None


class HistoryEntry(Answer):
    """One transition of a run."""

    seq: int
    at: Moment
    type: Annotated[str, Field(description="run.started, step.started, step.retrying, step.completed …")]
    step: str | None
    path: str | None
    iteration: int | None
    detail: Annotated[dict[str, Any] | None, Field(description="What there is to say about it.")]


class HistoryPage(Answer):
    """Every transition, oldest first."""

    items: list[HistoryEntry]
    next_cursor: str | None


class StepPage(Answer):
    """All steps, oldest first."""

    items: list[StepAnswer]
    next_cursor: str | None


class CancelBody(Body):
    """How to cancel."""

    compensate: Annotated[bool, Field(description="Undo the completed steps; the run then ends as `compensated`.")] = (
        False
    )
    reason: Annotated[str | None, Field(max_length=1000)] = None


class RerunBody(Body):
    """Where a run goes on that has ended."""

    from_step: Annotated[
        str | None, Field(min_length=1, max_length=1000, description="Id or path of a step. Default: the first.")
    ] = None
    context: Annotated[
        dict[str, Any], Field(description="Merge patch (RFC 7386) on the context as it was at that step.")
    ] = {}


class SkipBody(Body):
    """Which step to pass by."""

    step: Annotated[str, Field(min_length=1, max_length=1000, description="Id or path.")]


class ContextBody(Body):
    """The context of a run: any JSON object."""

    model_config = ConfigDict(extra="allow", strict=True)


class CallbackBody(Body):
    """What is answered: any object."""

    model_config = ConfigDict(extra="allow")


class CallbackAnswer(Answer):
    """The answer is kept for the run."""

    execution_id: str
    status: Literal["accepted"] = "accepted"


class SignalBody(Body):
    """A signal for a run."""

    name: Annotated[str, Field(min_length=1, max_length=200)]
    payload: Any = None
