"""The health pool: probe, judge, record, on the resident engine. A job's id is its instance's."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass

from esb_workers.health import checks
from esb_workers.health.judge import next_interval
from esb_workers.health.probe import probe
from esb_workers.runtime.ringer import Ringer
from esb_workers.runtime.slots import SlotEngine
from esb_workers.runtime.slotwork import Outcome
from esb_workers.settings import Settings
from esb_workers.store import checks as store
from esb_workers.store.checks import Finding, Recorded, Watched
from esb_workers.store.engine import Database
from esb_workers.store.jobs import Claim, Done
from esb_workers.transport.address import AddressGuard
from esb_workers.transport.http import HttpCaller

log = logging.getLogger(__name__)

#: For jobs whose instance is not to be looked at now, milliseconds.
_IDLE = 30_000


@dataclass(frozen=True, slots=True)
class Task:
    """A check that is due; without `watched` the instance is gone."""

    claim: Claim
    watched: Watched | None


@dataclass(frozen=True, slots=True)
class Checked:
    """What is to be recorded: a finding or none, and when to look again (milliseconds)."""

    task: Task
    finding: Finding | None
    interval: int


class HealthWork:
    """What the pool does with a claim: see runtime.slotwork.SlotWork."""

    #: The longest time-out of a check, and a margin: for a thread that is wedged.
    deadline_seconds = 660.0

    def __init__(self, database: Database, caller: HttpCaller) -> None:
        self._database = database
        self._caller = caller

    def prepare(self, claims: Sequence[Claim]) -> Sequence[Task]:
        """Load the instances."""
        with self._database.cursor() as cursor:
            found = store.load(cursor, [claim.id for claim in claims])
        return [Task(claim, found.get(claim.id)) for claim in claims]

    def run(self, task: Task) -> Outcome:
        """Look."""
        checked = self._checked(task)
        return Outcome(checked, good=checked.finding is None or checked.finding.ok, timer=True)

    def release(self, claim: Claim) -> Checked:
        """Look at once, by somebody else."""
        return Checked(Task(claim, None), None, 0)

    def record(self, worker: int, records: Sequence[Checked]) -> Done:
        """Judge and record, each in a transaction of its own: the rows are few and nothing is shared."""
        ours = [checked.task.claim.id for checked in records if self._record(worker, checked)]
        return Done(ours, [], timers=True)

    def _checked(self, task: Task) -> Checked:
        watched = task.watched
        if watched is None or watched.status == "inactive":
            return Checked(task, None, _IDLE)
        if checks.is_heartbeat(watched):
            return _silence(task, watched)
        interval = int(watched.health_check.get("interval", _IDLE))
        return Checked(task, probe(self._caller, watched.health_check), interval)

    def _record(self, worker: int, checked: Checked) -> bool:
        interval = checked.interval
        if checked.finding is not None and checked.task.watched is not None:
            recorded = checks.record(self._database, checked.task.watched, checked.finding)
            if recorded is not None:
                _tell(checked.task.watched, recorded)
                interval = next_interval(checks.verdict_of(recorded.state), interval)
        claim = checked.task.claim
        with self._database.cursor() as cursor:
            return store.reschedule(cursor, worker, claim.id, claim.attempt, interval)


def _silence(task: Task, watched: Watched) -> Checked:
    """A heartbeat is looked for when the last one's time is up; silence is recorded once."""
    ttl = int(watched.health_check.get("ttl") or 3 * watched.health_check.get("interval", _IDLE))
    left = ttl - round(watched.heard_ago * 1000)
    if left > 0:
        return Checked(task, None, left)
    silent = watched.health == "unhealthy"
    return Checked(task, None if silent else Finding(False, error=f"no heartbeat within {ttl} ms"), ttl)


def _tell(watched: Watched, recorded: Recorded) -> None:
    if recorded.changed:
        fields = {"service": watched.name, "instance": watched.id, "health": recorded.state.health}
        log.warning("health changes", extra=fields | {"error": recorded.finding.error})


class HealthEngine(SlotEngine):
    """The engine of this pool, with the connections it keeps and the net under its jobs."""

    def __init__(self, settings: Settings, database: Database, ringer: Ringer, slots: int) -> None:
        self._http = HttpCaller(AddressGuard.of(settings))
        super().__init__("health", settings, database, ringer, HealthWork(database, self._http), slots)

    def stop(self, grace_seconds: float) -> None:
        """Stop in good order and hang up."""
        super().stop(grace_seconds)
        self._http.close()

    def _sweep(self) -> None:
        super()._sweep()
        with self.database.cursor() as cursor:
            if store.adopt(cursor):
                self.poke()


def make_engine(settings: Settings, database: Database, ringer: Ringer, slots: int) -> HealthEngine:
    """The engine of this pool."""
    return HealthEngine(settings, database, ringer, slots)
