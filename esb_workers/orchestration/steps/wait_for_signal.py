"""`wait_for_signal`: goes on when somebody sends the run a signal of that name, or when it has waited enough."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import NamedTuple

from pydantic import Field

from esb_workers.clock import from_wire
from esb_workers.orchestration.callbacks import Target
from esb_workers.orchestration.failures import TIMEOUT, VALIDATION_ERROR, Failure, StepFailed
from esb_workers.orchestration.model import Evaluate
from esb_workers.orchestration.steps.base import At, Call, Completed, Config, Failed, Outcome, StepType, Waiting
from esb_workers.orchestration.steps.fields import RESULT_PATH, PositiveMilliseconds, StepId


class WaitForSignalConfig(Config):
    """`config` of a wait_for_signal step."""

    signal: str = Field(min_length=1, max_length=200)
    timeout: PositiveMilliseconds | None = None
    on_timeout: StepId | None = None
    result_path: RESULT_PATH = None
    callback: bool = Field(
        False,
        description="Puts `callbacks['step-id'].url` in scope: whoever posts there answers, once and without a key.",
    )


class _Compiled(NamedTuple):
    signal: Evaluate
    timeout: int | None
    on_timeout: str | None
    result_path: str | None
    callback: bool


class WaitForSignal(StepType):
    """A signal that came early is taken at once; at the deadline a signal that is there wins."""

    Config = WaitForSignalConfig
    effect = True
    pauses = True

    def compile(self, config: WaitForSignalConfig, at: At) -> _Compiled:
        return _Compiled(
            at.template(config.signal, "signal"), config.timeout, config.on_timeout, config.result_path, config.callback
        )

    def jumps(self, config: _Compiled) -> Iterable[tuple[str, str]]:
        if config.on_timeout is not None:
            yield "onTimeout", config.on_timeout

    def called_back(self, config: _Compiled | None) -> bool:
        return config is not None and config.callback

    def label(self, config: _Compiled, path: str) -> str | None:
        return "timeout"

    def prepare(self, call: Call) -> dict[str, str]:
        name = call.config.signal(call.names)
        if not isinstance(name, str) or not name:
            raise StepFailed(Failure(VALIDATION_ERROR, "signal is no name"))
        return {"signal": name}

    def run(self, call: Call) -> Outcome:
        config: _Compiled = call.config
        name = call.memo["signal"] if call.memo else call.input["signal"]
        taken = call.world.signal(name, call.visit)
        if taken is None and config.callback:
            target = Target(call.execution_id, call.path, call.iteration)
            taken = call.world.signal(target.signal, call.visit)
        if taken is not None:
            return Completed(taken[0], at=config.result_path)
        until = self._until(call)
        if until is None or until > call.now:
            memo = {"signal": name, "until": until.isoformat() if until else None}
            return Waiting("signal", until, memo, signal=name)
        if config.on_timeout is not None:
            return Completed({"timedOut": True}, next=config.on_timeout)
        return Failed(Failure(TIMEOUT, f"no signal {name!r} in {config.timeout} ms"))

    def _until(self, call: Call) -> datetime | None:
        if call.memo is not None:
            return from_wire(call.memo["until"]) if call.memo["until"] else None
        timeout = call.config.timeout
        return None if timeout is None else call.now + timedelta(milliseconds=timeout)
