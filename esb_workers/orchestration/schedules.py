"""Schedules: kept for people, and fired when they are due.

To fire is one transaction: lock the schedule, start its run, move on to the next due time. Whatever dies before its
commit has done nothing, and whoever comes next finds the schedule due; after it, the run is there. So each due time is
handled exactly once by any number of processes.
"""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

import orjson

from esb_workers import drill
from esb_workers.errors import Conflict, EsbError, NotFound, Unavailable
from esb_workers.orchestration.calendar import Calendar, due_times
from esb_workers.orchestration.start import NewExecution, Orchestration
from esb_workers.runtime.ringer import Ringer
from esb_workers.store import control, schedules, workflows
from esb_workers.store.engine import Cursor, Database
from esb_workers.store.ids import new_id
from esb_workers.store.json import dumps
from esb_workers.store.schedules import ScheduleRow

log = logging.getLogger("esb.orchestration")

#: The longest one tick stays at it, seconds.
BUDGET: Final = 1.0
#: Due times that wait for the run before them; what comes on top is skipped.
MAX_QUEUED: Final = 1000

Values = Mapping[str, Any]


class Schedules:
    """The front door of schedules. One a process; safe for threads."""

    def __init__(self, database: Database, orchestration: Orchestration) -> None:
        self._database = database
        self._orchestration = orchestration

    # --- for people ------------------------------------------------------------------------------------

    def create(self, values: Values, *, by: str) -> ScheduleRow:
        """Keep a schedule: its columns but `next_at`. Raises Invalid, NotFound (its workflow), Conflict (its name)."""
        id_ = new_id()
        with self._database.raw_transaction() as cursor:
            self._check(values)
            if not schedules.insert(cursor, id_, {**values, "next_at": _first(cursor, values)}):
                raise _taken(values)
            workflows.note(cursor, by, "create", "schedule", id_, values["name"], None)
            return _get(cursor, id_)

    def change(self, id_: str, edit: Callable[[ScheduleRow], Values], *, by: str) -> ScheduleRow:
        """Replace what people write. The next due time is looked for from now on. Raises as `create` does."""
        with self._database.raw_transaction() as cursor:
            values = edit(_get(cursor, id_, lock=True))
            self._check(values)
            if not schedules.update(cursor, id_, {**values, "next_at": _first(cursor, values)}):
                raise _taken(values)
            workflows.note(cursor, by, "update", "schedule", id_, values["name"], None)
            return _get(cursor, id_)

    def delete(self, id_: str, check: Callable[[ScheduleRow], None], *, by: str) -> None:
        """Remove a schedule; runs that it has started go on. Raises NotFound."""
        with self._database.raw_transaction() as cursor:
            row = _get(cursor, id_, lock=True)
            check(row)
            schedules.delete(cursor, id_)
            workflows.note(cursor, by, "delete", "schedule", id_, row.name, None)

    def get(self, id_: str) -> ScheduleRow:
        """Raises NotFound."""
        with self._database.cursor() as cursor:
            return _get(cursor, id_)

    def page(self, limit: int, before: str | None, **filters: Any) -> list[ScheduleRow]:
        """Newest first, one more than `limit` if there are more."""
        with self._database.cursor() as cursor:
            return schedules.page(cursor, limit, before, **filters)

    def _check(self, values: Values) -> None:
        """The workflow exists, and takes the context. Raises NotFound, Invalid."""
        self._orchestration.find(_start_of(values, "check", None))

    # --- when they are due -----------------------------------------------------------------------------

    def tick(self) -> int:
        """Handle what is due; how many runs were started. Raises Unavailable."""
        deadline = time.monotonic() + BUDGET
        started, passed = 0, list[str]()
        while time.monotonic() < deadline:
            count = self._fire_one(passed)
            if count is None:
                break
            started += count
        if started:
            self._orchestration.started()
        return started

    def _fire_one(self, passed: list[str]) -> int | None:
        """Handle one schedule; None if none is due. One that cannot be handled is passed by for this tick."""
        row: ScheduleRow | None = None
        try:
            with self._database.raw_transaction() as cursor:
                taken = schedules.take_due(cursor, passed)
                if taken is None:
                    return None
                row, now, open_runs = taken
                drill.crash_point(drill.AFTER_CLAIM)
                firing = _Firing(self._orchestration, cursor, row, list(open_runs))
                firing.go(now)
                schedules.advance(cursor, row.id, firing.next_at, firing.queued, firing.last)
                drill.crash_point(drill.AFTER_INSERT)
            return firing.started
        except Unavailable:
            raise
        except Exception:
            if row is None:
                raise
            log.exception("schedule %s could not be handled", row.name)
            passed.append(row.id)
            return 0


@dataclass(slots=True)
class _Firing:
    """One schedule being handled, locked."""

    orchestration: Orchestration
    cursor: Cursor
    row: ScheduleRow
    open_runs: list[str]
    queued: list[datetime] = field(default_factory=list)
    next_at: datetime | None = None
    last: dict[str, Any] | None = None
    started: int = 0

    def go(self, now: datetime) -> None:
        self.queued, self.next_at = list(self.row.queued), self.row.next_at
        if self.queued and not self.open_runs:
            self._start(self.queued.pop(0))
        if self.next_at is None or self.next_at > now:
            return
        calendar = calendar_of(self.row._asdict())
        dues = due_times(calendar, self.next_at, now, self.row.catch_up)
        for due in dues:
            self._handle(due)
        self.next_at = calendar.next(dues[-1] if dues else now)

    def _handle(self, due: datetime) -> None:
        if self.open_runs and self.row.overlap == "skip":
            self._note(due, "skipped: the run before is not through")
        elif self.row.overlap == "queue" and (self.open_runs or self.queued):
            if len(self.queued) < MAX_QUEUED:
                self.queued.append(due)
                self._note(due, "queued")
            else:
                self._note(due, f"skipped: {MAX_QUEUED} due times are waiting already")
        else:
            if self.row.overlap == "cancel_previous":
                self._cancel()
            self._start(due)

    def _cancel(self) -> None:
        reason = f"the next run of schedule {self.row.name} is due"
        for run in self.open_runs:
            control.act(self.cursor, "cancel", run, reason, False, dumps({"by": "schedule", "reason": reason}))
        self.open_runs.clear()

    def _start(self, due: datetime) -> None:
        new = _start_of(self.row._asdict(), new_id(), due)
        try:
            outcome, run = self.orchestration.start(new, self.orchestration.find(new), self.cursor)
        except Unavailable:
            raise
        except EsbError as error:  # its workflow is gone, does not take this context any more, or is at its limit
            log.warning("schedule %s could not start its run: %s", self.row.name, error.detail)
            self._note(due, f"refused: {error.detail}")
            return
        if outcome == "ok" and run is not None:
            self.open_runs.append(run)
            self.started += 1
        self._note(due, "started", run)

    def _note(self, due: datetime, outcome: str, run: str | None = None) -> None:
        self.last = {"at": due, "outcome": outcome, "run": run}


def duty(database: Database, ringer: Ringer) -> Callable[[], int]:
    """What `esb scheduler` does at each tick."""
    return Schedules(database, Orchestration(database, ringer)).tick


def calendar_of(values: Values) -> Calendar:
    """The due times of a schedule's columns."""
    return Calendar(values["cron"], values["timezone"], values["start_at"], values["end_at"])


def upcoming(row: ScheduleRow, now: datetime, count: int) -> Sequence[datetime]:
    """Its next due times; none while it is not enabled."""
    return calendar_of(row._asdict()).upcoming(now, count) if row.enabled else []


def _start_of(values: Values, correlation_id: str, due: datetime | None) -> NewExecution:
    # The same for each try at a due time, whoever makes it.
    jitter = random.Random(f"{values.get('id')}/{due}").randint(0, values["jitter"]) if due else 0
    return NewExecution(
        input=orjson.loads(values["input"]),
        correlation_id=correlation_id,
        workflow_id=values["workflow_id"],
        workflow_name=values["workflow_name"],
        version=values["version"],
        delay_ms=jitter,
        schedule_id=values.get("id"),
        scheduled_for=due,
    )


def _first(cursor: Cursor, values: Values) -> datetime | None:
    cursor.execute("select now()")
    (now,) = cursor.fetchone()  # type: ignore[misc]
    return calendar_of(values).next(now)


def _get(cursor: Cursor, id_: str, *, lock: bool = False) -> ScheduleRow:
    row = schedules.get(cursor, id_, lock=lock)
    if row is None:
        raise NotFound
    return row


def _taken(values: Values) -> Conflict:
    return Conflict(f"another schedule is called {values['name']}", code="name_taken")
