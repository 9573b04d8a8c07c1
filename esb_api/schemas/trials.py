"""Trials of workflows: definitions run over mocked results."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from esb_api.schemas.base import Answer, Body
from esb_api.schemas.orchestration import Definition, ExecutionStatus, HistoryEntry, StepAnswer
from esb_api.schemas.types import Moment
from esb_workers.orchestration.steps.fields import Milliseconds
from esb_workers.orchestration.trial.expect import Expectation
from esb_workers.orchestration.trial.mocks import Mock


def _listed(value: Any) -> Any:
    return value if isinstance(value, list) else [value]


#: One result for every attempt, or one for each, the last repeated.
Results = Annotated[list[Mock], BeforeValidator(_listed), Field(min_length=1, max_length=1000)]


class TrialSignal(Body):
    """A signal that the run gets."""

    name: Annotated[str, Field(min_length=1, max_length=200)]
    payload: Any = None
    after: Annotated[Milliseconds, Field(description="Milliseconds after the start.")] = 0


class TrialBody(Body):
    """What a trial is given, and what is expected of it."""

    initial_context: dict[str, Any] = {}
    mocks: Annotated[
        dict[str, Results],
        Field(
            description="Results of the steps that act on the world, by step id or by path: one, or a list with one for"
            " each attempt, whose last is repeated. Without any, a step completes with null."
        ),
    ] = {}
    signals: Annotated[list[TrialSignal], Field(max_length=1000)] = []
    started_at: Annotated[Moment | None, Field(description="Where the trial's clock starts.")] = None
    expect: Annotated[Expectation | None, Field(description="What it is to come to.")] = None


class DraftTrialBody(TrialBody):
    """A trial of a definition that is not kept."""

    definition: Definition


class TrialCallAnswer(Answer):
    """Something that a step would have done to the world."""

    at: Moment
    path: str
    attempt: int
    idempotency_key: str
    input: Any


class TrialLog(Answer):
    """A line of a `log` step."""

    at: Moment
    level: str
    message: Any
    path: str


class TrialWaiting(Answer):
    """What the run waits for where it goes no further by itself."""

    path: str
    reason: str
    until: Moment | None


class TrialDifference(Answer):
    """A place where the trial is not as expected."""

    path: str
    expected: Any
    actual: Any


class TrialAnswer(Answer):
    """What a trial came to. All times are of its own clock, which does not wait."""

    passed: Annotated[bool | None, Field(description="Whether it is as expected; null where nothing was.")]
    differences: list[TrialDifference]
    status: Annotated[ExecutionStatus, Field(description="`waiting`: for something that the trial was not given.")]
    output: Any
    error: Any
    context: Any
    started_at: Moment
    finished_at: Moment
    duration: Annotated[int, Field(description="Milliseconds.")]
    stopped: Annotated[str | None, Field(description="Why it was not followed to its end.")]
    waiting: list[TrialWaiting]
    unmocked: Annotated[list[str], Field(description="Steps that acted on the world without a mock.")]
    calls: list[TrialCallAnswer]
    logged: list[TrialLog]
    steps: list[StepAnswer]
    history: list[HistoryEntry]
