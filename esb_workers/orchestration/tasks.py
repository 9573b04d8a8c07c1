"""The orchestration pool: its engine, and what it does with a claimed strand."""

from __future__ import annotations

from collections.abc import Sequence

from esb_workers.orchestration.engine import Runner
from esb_workers.runtime.slots import Outcome
from esb_workers.store.jobs import Claim, Done

#: A claim that has not moved for so long is given to another worker, seconds; each transition sets it anew.
FIRST_DEADLINE = 60.0


class StrandWork:
    """Runs strands in the engine's slots. They write for themselves: nothing is left for the completer."""

    deadline_seconds = FIRST_DEADLINE

    def __init__(self, runner: Runner) -> None:
        self._runner = runner

    def prepare(self, claims: Sequence[Claim]) -> Sequence[Claim]:
        """Each strand loads what it needs when it runs."""
        return claims

    def run(self, task: Claim) -> Outcome:
        """Go on with a strand."""
        return Outcome(None, timer=self._runner.run(task.id, task.attempt))

    def release(self, claim: Claim) -> None:
        """A strand that was not begun goes back when the lease runs out."""

    def record(self, worker: int, records: Sequence[object]) -> Done:
        """Nothing to record."""
        return Done([])
