"""A step that does nothing and is journaled as if it did: what the bus itself takes for one step."""

from __future__ import annotations

from esb_workers.orchestration.steps.base import Call, Completed, Outcome, StepType


class Noop(StepType):
    """An effect, so that each begin is committed before it and each end after it."""

    effect = True

    def run(self, call: Call) -> Outcome:
        return Completed(None)
