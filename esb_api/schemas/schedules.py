"""Schedules."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from esb_api.params import PageQuery
from esb_api.schemas.base import Answer, Body
from esb_api.schemas.types import COMMAS, Moment, Name, Words, checked, milliseconds
from esb_workers.orchestration.calendar import check_cron, check_zone

CatchUp = Literal["none", "last", "all"]
Overlap = Literal["skip", "queue", "allow", "cancel_previous"]


class ScheduleBody(Body):
    """Starts runs of a workflow by a calendar."""

    read_only: ClassVar[frozenset[str]] = frozenset(
        ("id", "nextRuns", "queuedRuns", "lastDueAt", "lastOutcome", "lastExecutionId", "createdAt", "updatedAt")
    )

    name: Annotated[Name, Field(description="Unique without regard to case.")]
    workflow_id: Annotated[str | None, Field(max_length=100, description="This version of a workflow; or")] = None
    workflow_name: Annotated[Name | None, Field(description="the highest version at the time, or `version`.")] = None
    version: Annotated[str | None, Field(min_length=1, max_length=100)] = None
    cron: Annotated[
        str,
        Field(
            min_length=1,
            max_length=200,
            description="Five fields, or six with seconds first; or `@hourly`, `@daily`, `@weekly`, `@monthly` …",
            examples=["0 8 * * MON-FRI"],
        ),
        checked(check_cron),
    ]
    timezone: Annotated[str, Field(min_length=1, max_length=100, examples=["Europe/Berlin"]), checked(check_zone)] = (
        "UTC"
    )
    initial_context: Annotated[dict[str, Any], Field(description="What each run starts with.")] = {}
    catch_up: Annotated[
        CatchUp, Field(description="Due times that nobody was there to handle: left out, only the last, or all.")
    ] = "none"
    overlap: Annotated[
        Overlap, Field(description="When a run of this schedule is not through: skip the due time, queue it …")
    ] = "skip"
    jitter: Annotated[
        int, milliseconds(0, 86_400_000, "Each run begins up to so many milliseconds later, spread by chance.")
    ] = 0
    start_at: Annotated[Moment | None, Field(description="Due then at the earliest.")] = None
    end_at: Annotated[Moment | None, Field(description="Due before that.")] = None
    enabled: bool = True

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if (self.workflow_id is None) == (self.workflow_name is None):
            raise ValueError("needs either workflowId or workflowName")
        if self.version is not None and self.workflow_name is None:
            raise ValueError("version goes with workflowName")
        if self.start_at is not None and self.end_at is not None and self.end_at <= self.start_at:
            raise ValueError("endAt must be after startAt")
        return self


class ScheduleAnswer(Answer):
    """A schedule."""

    id: str
    name: str
    workflow_id: str | None
    workflow_name: str | None
    version: str | None
    cron: str
    timezone: str
    initial_context: dict[str, Any]
    catch_up: CatchUp
    overlap: Overlap
    jitter: int
    start_at: Moment | None
    end_at: Moment | None
    enabled: bool
    next_runs: Annotated[list[Moment], Field(description="The next five due times; none while it is not enabled.")]
    queued_runs: Annotated[int, Field(description="Due times that wait for the run before them to end.")]
    last_due_at: Annotated[Moment | None, Field(description="The last due time that was handled.")]
    last_outcome: Annotated[str | None, Field(description="`started`, `queued`, `skipped: …`, `refused: …`")]
    last_execution_id: Annotated[str | None, Field(description="The last run that was started.")]
    created_at: Moment
    updated_at: Moment


class SchedulePage(Answer):
    """Schedules, newest first."""

    items: list[ScheduleAnswer]
    next_cursor: str | None


class ScheduleQuery(PageQuery):
    """Filters of the list of schedules."""

    name: Words | None = None
    workflow_name: Words | None = None
    enabled: Annotated[list[Literal["true", "false"]], COMMAS] | None = None
