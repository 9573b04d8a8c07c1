"""Acts on many runs at once."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from esb_api.schemas.base import Answer, Body
from esb_api.schemas.orchestration import ExecutionStatus, ListedExecution
from esb_api.schemas.types import Moment

BulkAction = Literal["cancel", "pause", "resume", "retry"]
#: One word, or several of which one must fit.
OneOrMore = str | Annotated[list[str], Field(min_length=1, max_length=1000)]


class BulkFilterBody(Body):
    """Which runs; at least one field must be given. Of those, the act takes the ones whose state allows it."""

    ids: Annotated[list[str] | None, Field(min_length=1, max_length=10_000)] = None
    workflow_id: OneOrMore | None = None
    workflow_name: OneOrMore | None = None
    status: ExecutionStatus | Annotated[list[ExecutionStatus], Field(min_length=1)] | None = None
    error_class: Annotated[OneOrMore | None, Field(description="`HttpStatus.5xx` is all of them.")] = None
    correlation_id: OneOrMore | None = None
    business_key: OneOrMore | None = None
    client_id: OneOrMore | None = None
    from_: Annotated[Moment | None, Field(alias="from", description="Started then or later.")] = None
    to: Annotated[Moment | None, Field(description="Started before.")] = None


class BulkBody(Body):
    """An act on many runs."""

    action: BulkAction
    filter: BulkFilterBody
    dry_run: Annotated[bool, Field(description="Only say which runs it would take.")] = False
    reason: Annotated[str | None, Field(max_length=1000, description="Of a cancel.")] = None
    compensate: Annotated[bool, Field(description="Of a cancel: undo the completed steps.")] = False

    @model_validator(mode="after")
    def _of_a_cancel(self) -> Self:
        if self.action != "cancel" and (self.compensate or self.reason is not None):
            raise ValueError("reason and compensate go with the action cancel")
        return self


class DryBulkAnswer(Answer):
    """What an act would take."""

    matched: int
    sample: Annotated[list[ListedExecution], Field(description="The newest ten of them.")]


class StartedBulkAnswer(Answer):
    """The act is stored, with the runs it takes: it will be carried out whatever happens to the processes."""

    bulk_id: str
    matched: int


class BulkAnswer(Answer):
    """How far an act on many runs has come."""

    id: str
    action: BulkAction
    filter: dict[str, Any]
    reason: str | None
    compensate: bool
    status: Literal["running", "completed", "cancelled"]
    matched: int
    done: int
    refused: Annotated[int, Field(description="Runs whose state did not allow it any more.")]
    created_at: Moment
    finished_at: Moment | None
