"""An engine for work that waits on the outside world: delivery, orchestration, health.

The pump claims only what a free slot starts now. Slots run calls with no transaction open. The completer records
many outcomes in one statement, a few milliseconds after the first of them.
"""

from __future__ import annotations

import logging
import queue as queues
import threading
import time
from collections import Counter, deque
from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

from tenacity import retry, retry_if_exception_type, stop_after_delay, wait_random_exponential

from esb_workers import drill
from esb_workers.errors import Unavailable
from esb_workers.queues import PoolName
from esb_workers.runtime.engine import Engine
from esb_workers.runtime.ringer import Ringer
from esb_workers.runtime.windows import LaneWindows
from esb_workers.settings import Settings
from esb_workers.store.engine import Database
from esb_workers.store.jobs import Claim, Done
from esb_workers.store.step_queues import StepQueue

log = logging.getLogger(__name__)

#: Outcomes recorded by one statement at most, and how long the first of them waits for others, seconds.
FLUSH_COUNT = 100
FLUSH_AFTER = 0.005
#: How long a claim waits under load for slots to come free and rows to gather, seconds: see runtime.pace.
GATHER = 0.003
#: How long tasks wait for slots that are awake before further ones are woken, seconds.
RAMP = 0.001


class Outcome(NamedTuple):
    """What a slot made of a claim: the record for the store (None: it is recorded already), whether the destination
    did well, and whether a timer was set that this engine is to look at.
    """

    record: Any = None
    good: bool = True
    timer: bool = False


class SlotWork(Protocol):
    """What a pool does with a row."""

    #: Past this a claim is taken for wedged and given to another worker, seconds.
    deadline_seconds: float

    def prepare(self, claims: Sequence[Claim]) -> Sequence[Any]:
        """Load what the rows need, in as few round trips as there are; one task for each claim, in its order."""
        ...

    def run(self, task: Any) -> Outcome:
        """Do one, in a slot's thread, with no transaction open. Must not raise: an error is an outcome."""
        ...

    def release(self, claim: Claim) -> Any:
        """The record that gives a row back unstarted, or None if the lease running out will do."""
        ...

    def record(self, worker: int, records: Sequence[Any]) -> Done:
        """Write outcomes; answers what was still ours, and the keys that may go on."""
        ...


class _Item(NamedTuple):
    worker: int
    claim: Claim
    task: Any


class SlotEngine(Engine):
    """Gives each claimed row to one of `slots` threads."""

    def __init__(
        self,
        pool: PoolName,
        settings: Settings,
        database: Database,
        ringer: Ringer,
        work: SlotWork,
        slots: int,
        *,
        queue: StepQueue | None = None,
    ) -> None:
        super().__init__(pool, settings, database, ringer, queue=queue)
        self._slot_work = work
        self._slots = slots
        self._lock = threading.Lock()
        self._in_flight = 0
        self._full = False  # the last claim took all it was allowed: there is more, nothing has to gather
        self._windows = LaneWindows(slots)
        self._tasks: deque[_Item] = deque()
        self._tokens: queues.SimpleQueue[bool] = queues.SimpleQueue()  # each wakes one slot; False: for good
        self._results: queues.SimpleQueue[tuple[_Item, Any] | None] = queues.SimpleQueue()
        self._freed = threading.Event()
        self._unrecorded = 0

    def start(self) -> None:
        """Start the slots and the completer, then the rest."""
        for number in range(self._slots):
            threading.Thread(target=self._slot, name=f"{self.pool}-slot-{number}", daemon=True).start()
        completer = threading.Thread(target=self._complete, name=f"{self.pool}-completer", daemon=True)
        completer.start()
        super().start()

    # --- claiming ------------------------------------------------------------------------------------

    def _work(self) -> bool:
        free = self._free_slots()
        if free == 0:
            return True
        return self._claim_and_start(free) > 0

    def _claim_and_start(self, free: int) -> int:
        with self._lock:
            now = time.monotonic()
            proven = {lane: room for lane, room in self._windows.proven(now).items() if room}
            share, room, rooms = self._windows.unproven(now)
        # One claim for all lanes as long as it cannot give the unproven ones more than their share; else one for each.
        together = min(free, share)
        if together >= free // 2:
            return self._start(together, room, rooms | proven, unproven=True)
        started = self._start(free, 0, proven, unproven=False) if proven else 0
        if (left := min(free - started, share)) > 0:
            started += self._start(left, room, rooms, unproven=True)
        return started

    def _start(self, limit: int, room: int, rooms: dict[int, int], unproven: bool) -> int:
        """Claim and give to slots; how many. `unproven`: whether lanes that are not proven may have some."""
        worker = self.worker_id  # of before the claim: in a new life, rows of the old one are not started
        claims = self._claim(limit, room, rooms, lease_seconds=self._slot_work.deadline_seconds)
        self._full = len(claims) == limit
        taken = Counter(claim.lane_id for claim in claims)
        with self._lock:
            self._windows.claimed(limit, room, rooms, taken)
            if unproven:
                self._windows.claimed_unproven(limit, len(claims))
        if claims:
            self._dispatch(worker, claims)
        return len(claims)

    def _free_slots(self) -> int:
        """Free slots, after waiting a little under load for more of them."""
        if self._loaded() and not self._full:
            time.sleep(GATHER)
        if self._in_flight == self._slots:
            self._freed.clear()
            self._freed.wait(0.05)
        return self._slots - self._in_flight

    def _dispatch(self, worker: int, claims: list[Claim]) -> None:
        try:
            tasks = self._slot_work.prepare(claims)
        except BaseException as error:
            # A defect counts as a loss, so that it ends; a database that is away does not.
            self._let_go(claims, lost=not isinstance(error, Unavailable))
            raise
        now = time.monotonic()
        with self._lock:
            self._in_flight += len(claims)
            self._unrecorded += len(claims)
            for claim in claims:
                self._windows.started(claim.lane_id, claim.id, now)
        self._tasks.extend(_Item(worker, claim, task) for claim, task in zip(claims, tasks, strict=True))
        self._wake_slots(len(claims))

    def _wake_slots(self, count: int) -> None:
        """Wake one slot for `count` tasks, and twice as many every RAMP for as long as some are not taken.

        Where calls are quick, one or two slots do them one after the other, which costs half of what it costs to have
        a thread wake for each and all of them wait for the interpreter; where they are slow, a few milliseconds later
        every task has a slot.
        """
        woken = 0
        more = 1
        while self._tasks and woken < count:
            if woken:
                time.sleep(RAMP)
            for _ in range(more):
                self._tokens.put(True)
            woken += more
            more *= 2

    # --- slots ---------------------------------------------------------------------------------------

    def _slot(self) -> None:
        while True:
            try:
                item = self._tasks.popleft()
            except IndexError:
                if not self._tokens.get():
                    return
                continue
            outcome = self._run(item)
            with self._lock:
                self._in_flight -= 1
                more = self._windows.finished(item.claim.lane_id, item.claim.id, time.monotonic(), outcome.good)
            self._results.put((item, outcome.record))
            self._freed.set()
            if outcome.timer:
                self.poke()
            elif more:
                self._poked.set()

    def _run(self, item: _Item) -> Outcome:
        if item.worker != self.worker_id or not self.may_act():
            return Outcome(self._slot_work.release(item.claim))
        try:
            return self._slot_work.run(item.task)
        except Exception:
            log.exception("job %s of pool %s failed in a way that is a defect", item.claim.id, self.pool)
            self._let_go([item.claim], lost=True)  # after five times it is poison
            return Outcome(None, good=False)

    # --- completing ----------------------------------------------------------------------------------

    def _complete(self) -> None:
        while (first := self._results.get()) is not None:
            # Slept through, not waited for: to be woken by each outcome would cost as much as to record it.
            time.sleep(FLUSH_AFTER)
            batch = [first]
            last = self._gather(batch)
            self._flush(batch)
            if last:
                return

    def _gather(self, batch: list[tuple[_Item, Any]]) -> bool:
        """Add what is there to `batch`; whether that was the end of all."""
        try:
            while len(batch) < FLUSH_COUNT:
                item = self._results.get_nowait()
                if item is None:
                    return True
                batch.append(item)
        except queues.Empty:
            pass
        return False

    def _flush(self, batch: list[tuple[_Item, Any]]) -> None:
        by_worker: dict[int, list[tuple[_Item, Any]]] = {}
        for item, record in batch:
            if record is not None:
                by_worker.setdefault(item.worker, []).append((item, record))
        for worker, records in by_worker.items():
            try:
                self._record(worker, [record for _, record in records])
            except Exception:
                # What is not recorded here is given back and done again: sent twice, under one id.
                log.exception("%d outcomes could not be recorded", len(records))
                self._let_go((item.claim for item, _ in records), lost=True)
        self._let_go(item.claim for item, _ in batch)
        with self._lock:
            self._unrecorded -= len(batch)

    def _record(self, worker: int, records: list[Any]) -> None:
        drill.crash_point(drill.AFTER_CALL_BEFORE_RECORD)
        done = self._written(worker, records)
        self.figures.recorded += len(done.ids)
        self.figures.superseded += len(records) - len(done.ids)
        self.promote(done.keys)
        if done.timers:
            self.poke()

    # A database that restarts is back in seconds; the fence makes a late record harmless. Past the lease there is no
    # point: the rows are another's by then.
    @retry(
        retry=retry_if_exception_type(Unavailable),
        wait=wait_random_exponential(multiplier=0.1, max=2),
        stop=stop_after_delay(30),
        reraise=True,
    )
    def _written(self, worker: int, records: list[Any]) -> Done:
        return self._slot_work.record(worker, records)

    # --- stopping ------------------------------------------------------------------------------------

    def _busy(self) -> bool:
        return self._unrecorded > 0

    def _finish(self, deadline: float) -> None:
        while self._busy() and time.monotonic() < deadline:
            time.sleep(0.01)
        for _ in range(self._slots):
            self._tokens.put(False)
        self._results.put(None)
