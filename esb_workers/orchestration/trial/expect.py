"""What a trial is expected to come to, and where it came to something else."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final, NamedTuple

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

from esb_workers.orchestration.trial.run import Trial
from esb_workers.orchestration.views import StepView

_ABSENT: Final = object()


class Expectation(BaseModel):
    """Only what is named is looked at. Objects are compared by the names they mention."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, alias_generator=to_camel)

    status: str | None = Field(None, description="Of the run.")
    output: Any = Field(None, description="Of the run, equal to this.")
    context: dict[str, Any] = Field({}, description="Names that the context must have, with these values.")
    error: str | None = Field(None, description="Class of the run's error.")
    steps: dict[str, str] = Field({}, description="Status of steps, by id or path; the last visit counts.")
    attempts: dict[str, int] = Field({}, description="Attempts at steps, by id or path; the last visit counts.")
    duration: int | None = Field(None, description="Milliseconds that the run takes.")


class Difference(NamedTuple):
    """A place where a trial is not as expected."""

    path: str
    expected: Any
    actual: Any


def differences(expected: Expectation, trial: Trial, steps: list[StepView]) -> list[Difference]:
    """Every place where the trial is not as expected."""
    return [
        Difference(path, wanted, None if found is _ABSENT else found)
        for path, wanted, found in _looks(expected, trial, steps)
        if wanted != found
    ]


def _looks(expected: Expectation, trial: Trial, steps: list[StepView]) -> Iterator[tuple[str, Any, Any]]:
    if expected.status is not None:
        yield "status", expected.status, trial.status
    if "output" in expected.model_fields_set:
        yield "output", expected.output, trial.output
    for name, value in expected.context.items():
        yield f"context.{name}", value, trial.context.get(name, _ABSENT)
    if expected.error is not None:
        yield "error", expected.error, (trial.error or {}).get("class")
    last = {view.id: view for view in steps} | {view.path: view for view in steps}
    for field, wanted in (("status", expected.steps), ("attempts", expected.attempts)):
        yield from _of_steps("steps" if field == "status" else field, field, wanted, last)
    if expected.duration is not None:
        yield "duration", expected.duration, round((trial.ended - trial.started).total_seconds() * 1000)


def _of_steps(
    where: str, field: str, wanted: Mapping[str, Any], last: Mapping[str, StepView]
) -> Iterator[tuple[str, Any, Any]]:
    for name, value in wanted.items():
        yield f"{where}.{name}", value, getattr(last[name], field) if name in last else _ABSENT
