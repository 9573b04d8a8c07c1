"""Runs a definition in a trial, and says what came of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from esb_workers.errors import Invalid
from esb_workers.orchestration.advance import Advance
from esb_workers.orchestration.engine import obey
from esb_workers.orchestration.failures import StepFailed
from esb_workers.orchestration.model import Program
from esb_workers.orchestration.programs import Workflow
from esb_workers.orchestration.steps.base import Call, Failed, Outcome
from esb_workers.orchestration.strand import Reload
from esb_workers.orchestration.trial.ledger import MAX_EVENTS, Ledger, Signal, Stopped
from esb_workers.orchestration.trial.mocks import Mocks
from esb_workers.orchestration.trial.strand import TrialStrand
from esb_workers.orchestration.trial.world import TrialCall, TrialWorld
from esb_workers.store.executions import Loaded
from esb_workers.store.json import dumps
from esb_workers.store.runs import HistoryRow

#: The id of every run of a trial: keys and paths of two trials can be compared.
RUN_ID: Final = "00000000-0000-7000-8000-000000000000"
CORRELATION_ID: Final = "trial"
STARTED: Final = datetime(2026, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Plan:
    """What a trial is given."""

    given: Mapping[str, Any]
    mocks: Mocks
    signals: Sequence[tuple[str, Any, int]] = ()  # name, payload, milliseconds after the start
    started: datetime = STARTED
    name: str = "trial"
    version: str = "0.0.0"


@dataclass(frozen=True, slots=True)
class Trial:
    """What came of it. `stopped`: why it was not followed to its end."""

    status: str
    output: Any
    error: Mapping[str, Any] | None
    context: Any
    rows: Sequence[HistoryRow]
    calls: Sequence[TrialCall]
    logged: Sequence[Mapping[str, Any]]
    waiting: Sequence[tuple[str, str, datetime | None]]
    unmocked: Sequence[str]
    started: datetime
    ended: datetime
    stopped: str | None = None


class _Advance(Advance):
    """The engine's, but for who carries out an attempt."""

    world: TrialWorld
    hands_over = False

    def _run(self, call: Call) -> Outcome:
        try:
            return self.world.run(call)
        except StepFailed as failed:
            return Failed(failed.failure)


class _Trial:
    """One trial under way."""

    def __init__(self, program: Program, plan: Plan) -> None:
        self.program, self.plan = program, plan
        self.workflow = Workflow(RUN_ID, plan.name, plan.version, 0, program)
        self.ledger = Ledger(RUN_ID, plan.started)
        self.ledger.signals = [
            Signal(name, payload, plan.started + timedelta(milliseconds=after)) for name, payload, after in plan.signals
        ]
        self.calls: list[TrialCall] = []
        self.logged: list[Mapping[str, Any]] = []
        self.worlds: dict[str, TrialWorld] = {}
        self.root = TrialStrand(self.ledger, RUN_ID, self._loaded(), program, plan.started)

    def _loaded(self) -> Loaded:
        timeout = self.program.timeout
        deadline = None if timeout is None else self.plan.started + timedelta(milliseconds=timeout)
        return Loaded(
            now=self.plan.started, control=None, inbox=0, cursor=None, parent_job=None, parent_path=None,
            execution_id=RUN_ID, workflow_id=RUN_ID, client_id=None, waited_for=False, status="open",
            correlation_id=CORRELATION_ID, traceparent=None, input=dumps(dict(self.plan.given)), deadline=deadline,
            undo=False, skips=[], allowed_services=None, revision=0,
            seed=None, snapshot_n=None, snapshot=None, events=[],
        )  # fmt: skip

    def go(self) -> str | None:
        """To its end, or as far as it goes by itself; why it was stopped before."""
        self.ledger.wake(self.root, self.plan.started)
        try:
            while self.ledger.ended is None and (strand := self.ledger.next_turn()) is not None:
                self._turn(strand)
        except Stopped:
            return f"a trial ends after {MAX_EVENTS} events, or when its computation takes too long"
        return None

    def _turn(self, strand: TrialStrand) -> None:
        world = self.worlds.setdefault(strand.key.job, TrialWorld(strand, self.plan.mocks, self.calls, self.logged))
        while True:
            try:
                if strand.control:
                    obey(strand)
                else:
                    _Advance(
                        strand,
                        self.workflow,
                        world,
                        random=lambda: 0.0,
                        may_act=lambda: self.ledger.leads(strand),
                        strict=True,
                    ).go()
            except Reload:
                continue
            return

    def report(self, stopped: str | None) -> Trial:
        rows = self.ledger.rows()
        status, output, error = self.ledger.ended or ("running" if stopped else "waiting", None, None)
        return Trial(
            status=status,
            output=output,
            error=error,
            context=self.root.state.context,
            rows=rows,
            calls=sorted(self.calls, key=lambda call: call.at),
            logged=self.logged,
            waiting=[] if self.ledger.ended else self.ledger.waiting(),
            unmocked=list(self.plan.mocks.missed),
            started=self.plan.started,
            ended=max((row.at for row in rows), default=self.plan.started),
            stopped=stopped,
        )


def try_out(program: Program, plan: Plan) -> Trial:
    """Run a definition over mocks. Raises Invalid if the input does not fit its schema, or a mock no step."""
    plan.mocks.check(program)
    schema = program.input_schema
    if schema is not None and (faults := schema.faults(dict(plan.given), "initialContext")):
        raise Invalid(faults)
    trial = _Trial(program, plan)
    return trial.report(trial.go())
