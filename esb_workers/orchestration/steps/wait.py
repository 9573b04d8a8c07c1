"""`wait`: lets time pass, for a duration or until a moment. No thread waits; a timer row does."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import NamedTuple, Self

from pydantic import ConfigDict, model_validator

from esb_workers.clock import from_wire
from esb_workers.orchestration.failures import VALIDATION_ERROR, Failure, StepFailed
from esb_workers.orchestration.model import Evaluate
from esb_workers.orchestration.steps.base import At, Call, Completed, Config, Outcome, StepType, Waiting
from esb_workers.orchestration.steps.fields import MAX_MS, Duration, Moment


class WaitConfig(Config):
    """`config` of a wait step: one of the two."""

    model_config = ConfigDict(json_schema_extra={"oneOf": [{"required": ["duration"]}, {"required": ["until"]}]})

    duration: Duration = None
    until: Moment | None = None

    @model_validator(mode="after")
    def _one(self) -> Self:
        if (self.duration is None) == (self.until is None):
            raise ValueError("needs either duration or until")
        return self


class _Compiled(NamedTuple):
    duration: Evaluate | None
    until: Evaluate | None


class Wait(StepType):
    """The moment is fixed when the step is first visited; waking early changes nothing."""

    Config = WaitConfig
    pauses = True

    def compile(self, config: WaitConfig, at: At) -> _Compiled:
        duration = None if config.duration is None else at.template(config.duration, "duration")
        return _Compiled(duration, None if config.until is None else at.template(config.until, "until"))

    def run(self, call: Call) -> Outcome:
        until = from_wire(call.memo["until"]) if call.memo else self._until(call)
        if until <= call.now:
            return Completed()
        return Waiting("timer", until, {"until": _exact(until)})

    def _until(self, call: Call) -> datetime:
        if call.config.duration is not None:
            value = call.config.duration(call.names)
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= MAX_MS:
                raise StepFailed(Failure(VALIDATION_ERROR, f"duration is no number of milliseconds: {value!r:.100}"))
            return call.now + timedelta(milliseconds=value)
        value = call.config.until(call.names)
        try:
            return from_wire(value)
        except (ValueError, TypeError):
            raise StepFailed(Failure(VALIDATION_ERROR, f"until is no RFC 3339 timestamp: {value!r:.100}")) from None


def _exact(moment: datetime) -> str:
    """To the microsecond: rounded down to milliseconds, a wait would end before its time."""
    return moment.astimezone(UTC).isoformat().replace("+00:00", "Z")
