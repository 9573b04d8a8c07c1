"""Trials: from a body to what it came to. Touches no database; the API and the command line share it."""

from __future__ import annotations

from dataclasses import asdict

from esb_api import execution_view
from esb_api.schemas.trials import (
    TrialAnswer,
    TrialBody,
    TrialCallAnswer,
    TrialDifference,
    TrialLog,
    TrialWaiting,
)
from esb_workers.orchestration import views
from esb_workers.orchestration.model import Program
from esb_workers.orchestration.trial.expect import Difference, differences
from esb_workers.orchestration.trial.mocks import Mocks
from esb_workers.orchestration.trial.run import STARTED, Plan, Trial, try_out
from esb_workers.orchestration.views import StepView


def tried(program: Program, body: TrialBody, name: str = "trial", version: str = "0.0.0") -> TrialAnswer:
    """Run the trial. Raises Invalid if its input does not fit, or a mock no step."""
    plan = Plan(
        body.initial_context,
        Mocks(body.mocks),
        [(signal.name, signal.payload, signal.after) for signal in body.signals],
        body.started_at or STARTED,
        name,
        version,
    )
    trial = try_out(program, plan)
    steps = _steps(program, trial)
    found = differences(body.expect, trial, steps) if body.expect is not None else []
    return _answer(trial, steps, found, None if body.expect is None else not found)


def _steps(program: Program, trial: Trial) -> list[StepView]:
    openings = [row for row in trial.rows if row.type.startswith("step.") and row.visit == row.n]
    events = [row for row in trial.rows if row.type.startswith("step.")]
    undone = {(r.path or "").removesuffix(":compensate"): r.seq for r in trial.rows if r.type == "step.compensated"}
    return views.steps(program, openings, events, undone, trial.status)


def _answer(trial: Trial, steps: list[StepView], found: list[Difference], passed: bool | None) -> TrialAnswer:
    return TrialAnswer(
        passed=passed,
        differences=[TrialDifference(**d._asdict()) for d in found],
        status=trial.status,
        output=trial.output,
        error=trial.error,
        context=trial.context,
        started_at=trial.started,
        finished_at=trial.ended,
        duration=round((trial.ended - trial.started).total_seconds() * 1000),
        stopped=trial.stopped,
        waiting=[TrialWaiting(path=path, reason=reason, until=until) for path, reason, until in trial.waiting],
        unmocked=list(trial.unmocked),
        calls=[TrialCallAnswer(**asdict(call)) for call in trial.calls],
        logged=[TrialLog(**line) for line in trial.logged],
        steps=[execution_view.step(view) for view in steps],
        history=execution_view.history(trial.rows, 0),
    )
