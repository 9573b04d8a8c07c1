"""An engine for work that waits on the outside world: delivery, orchestration, health.

The pump claims only what a free slot starts now, and, where the work allows it, some rows ahead of that from lanes
whose calls are quick. Slots run calls with no transaction open. The completer records many outcomes in one statement,
a few milliseconds after the first of them.
"""

from __future__ import annotations

import logging
import queue as queues
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

from tenacity import retry, retry_if_exception_type, stop_after_delay, wait_random_exponential

from esb_workers import drill, logs
from esb_workers.errors import Unavailable
from esb_workers.queues import PoolName
from esb_workers.runtime.ahead import Ahead
from esb_workers.runtime.engine import Engine
from esb_workers.runtime.ringer import Ringer
from esb_workers.runtime.volley import Call, volley
from esb_workers.runtime.windows import LaneWindows
from esb_workers.settings import Settings
from esb_workers.store.engine import Database
from esb_workers.store.jobs import Claim, Done
from esb_workers.store.step_queues import StepQueue

log = logging.getLogger(__name__)

#: Outcomes recorded by one statement at most; how long the first of them waits for others, and how long at most under
#: load, if nobody waits for them, seconds.
FLUSH_COUNT = 200
FLUSH_AFTER = 0.005
FLUSH_LATEST = 0.02
#: How long a claim waits under load for slots to come free and rows to gather, seconds: see runtime.pace.
GATHER = 0.003
#: How long tasks wait for slots that are awake before further ones are woken, seconds.
RAMP = 0.001
#: While rows are claimed ahead, and others had none, those are looked for this often, seconds.
LOOK_ASIDE = 0.025


class Outcome(NamedTuple):
    """What a slot made of a claim: the record for the store (None: it is recorded already), whether the destination
    did well, whether a timer was set that this engine is to look at, and whether nothing else waits for the record.
    """

    record: Any = None
    good: bool = True
    timer: bool = False
    patient: bool = False


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


#: Makes a task's call ready to be sent: see runtime.volley.
Ready = Callable[[Any], "Outcome | Call[Outcome] | None"]


class _Item(NamedTuple):
    worker: int
    claim: Claim
    task: Any
    call: Call[Outcome] | None = None  # sent already: its answer is still to be read


class _Result(NamedTuple):
    item: _Item
    record: Any
    patient: bool = False


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
        ahead: int = 0,
        ready: Ready | None = None,
    ) -> None:
        """`ahead`: how many rows of swift lanes may be claimed before a slot is free for them. Needs work whose
        `release` gives rows back. With `ready`, one slot has several calls of a swift lane under way.
        """
        super().__init__(pool, settings, database, ringer, queue=queue)
        self._slot_work = work
        self._slots = slots
        self._lock = threading.Lock()
        self._in_flight = 0
        self._aside_at = 0.0  # monotonic moment from which others than swift lanes are looked for again
        self._full = False  # the last claim took all it was allowed: there is more, nothing has to gather
        self._windows = LaneWindows(slots)
        self._deep, self._ready = ahead > 0, ready
        self._ahead: Ahead[_Item] = Ahead(ahead)
        self._tasks: deque[_Item] = deque()
        self._tokens: queues.SimpleQueue[bool] = queues.SimpleQueue()  # each wakes one slot; False: for good
        self._results: queues.SimpleQueue[_Result | None] = queues.SimpleQueue()
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
        self._wait_for_slots()
        started = self._claim_ahead()
        free = self._slots - self._in_flight
        busy = started > 0 or not self._ahead.low
        if free <= 0 or (busy and time.monotonic() < self._aside_at):
            return True
        return self._claim_and_start(free) + started > 0

    def _claim_ahead(self) -> int:
        """Claim rows of swift lanes ahead of free slots when few of them are left; how many."""
        with self._lock:
            now = time.monotonic()
            self._give_back_slow(now)
            rooms = {lane: self._ahead.room_in(lane) for lane in self._windows.swift_with_more(now)}
            limit = min(self._ahead.room, sum(rooms.values())) if self._ahead.low else 0
        return self._start(limit, 0, rooms, turn="ahead") if limit else 0

    def _give_back_slow(self, now: float) -> None:
        """Give back what is held ahead of lanes that are swift no more: slots at work there may be stuck for long."""
        for lane in self._ahead.lanes():
            if not self._windows.swift(lane, now) or not self._windows.busy(lane):
                self._release(self._ahead.drop(lane))

    def _release(self, items: Sequence[_Item]) -> None:
        for item in items:
            self._results.put(_Result(item, self._slot_work.release(item.claim)))

    def _claim_and_start(self, free: int) -> int:
        with self._lock:
            now = time.monotonic()
            # Lanes that rows are claimed ahead of have their own claim.
            swift = dict.fromkeys((*self._ahead.lanes(), *self._windows.swift_with_more(now)), 0) if self._deep else {}
            proven = {lane: room for lane, room in self._windows.proven(now).items() if room and lane not in swift}
            share, room, rooms = self._windows.unproven(now)
        # One claim for all lanes as long as it cannot give the unproven ones more than their share; else one for each.
        together = min(free, share)
        if together >= free // 2:
            started = self._start(together, room, rooms | proven | swift, turn="all")
            # Nobody but the swift has anything: not to be asked again before every claim ahead.
            self._aside_at = now + LOOK_ASIDE if swift and not started else 0.0
            return started
        started = self._start(free, 0, proven, turn="proven") if proven else 0
        if (left := min(free - started, share)) > 0:
            started += self._start(left, room, rooms | swift, turn="all")
        return started

    def _start(self, limit: int, room: int, rooms: dict[int, int], turn: str) -> int:
        """Claim and give to slots; how many. `turn`: among which claims lanes get theirs."""
        worker = self.worker_id  # of before the claim: in a new life, rows of the old one are not started
        claims = self._claim(limit, room, rooms, lease_seconds=self._slot_work.deadline_seconds, turn=turn)
        self._full = len(claims) == limit
        taken = Counter(claim.lane_id for claim in claims)
        with self._lock:
            self._windows.claimed(limit, room, rooms, taken)
            if turn == "all":
                self._windows.claimed_unproven(limit, len(claims))
        if claims:
            self._dispatch(worker, claims, ahead=turn == "ahead")
        return len(claims)

    def _wait_for_slots(self) -> None:
        """Wait until a slot is free, and under load a little for more of them."""
        if not self._ahead.low:
            self._freed.clear()
            # Until few are left, or else to look for others.
            self._freed.wait(max(0.001, min(self._aside_at - time.monotonic(), LOOK_ASIDE)))
        elif self._loaded() and not self._full:
            time.sleep(GATHER)
        if self._in_flight >= self._slots:
            self._freed.clear()
            self._freed.wait(0.05)

    def _dispatch(self, worker: int, claims: list[Claim], *, ahead: bool) -> None:
        try:
            tasks = self._slot_work.prepare(claims)
        except BaseException as error:
            # A defect counts as a loss, so that it ends; a database that is away does not.
            self._let_go(claims, lost=not isinstance(error, Unavailable))
            raise
        items = [_Item(worker, claim, task) for claim, task in zip(claims, tasks, strict=True)]
        now = time.monotonic()
        with self._lock:
            self._unrecorded += len(items)
            if ahead:
                items = self._put_ahead(items, now)
            self._in_flight += len(items)
            for item in items:
                self._windows.started(item.claim.lane_id, item.claim.id, now)
        self._tasks.extend(items)
        self._wake_slots(len(items))

    def _put_ahead(self, items: list[_Item], now: float) -> list[_Item]:
        """Hold `items` ahead; answers those that free slots are to begin with.

        A lane never has rows here without a slot at work in it, for it is the slots that go on with them.
        """
        for item in items:
            self._ahead.put(item.claim.lane_id, item)
        first: list[_Item] = []
        for lane in dict.fromkeys(item.claim.lane_id for item in items):
            if not self._windows.swift(lane, now):  # since it was claimed
                self._release(self._ahead.drop(lane))
                continue
            free = self._slots - self._in_flight - len(first)
            begun = (self._ahead.take(lane) for _ in range(self._windows.idle_places(lane, free)))
            first += [item for item in begun if item is not None]
        return first

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
        items: list[_Item] = []
        while True:
            if not items:
                try:
                    items = [self._tasks.popleft()]
                except IndexError:
                    if not self._tokens.get():
                        return
                    continue
            items = self._volley(items) if len(items) > 1 else self._single(items[0])

    def _single(self, item: _Item) -> list[_Item]:
        """Do one; what the slot goes on with."""
        began = None if item.call else time.monotonic()
        outcome = self._run(item)
        return self._ended([(item, outcome)], item.claim.lane_id, began)

    def _volley(self, items: list[_Item]) -> list[_Item]:
        """Do several of one lane; what the slot goes on with."""
        worker, lane = items[0].worker, items[0].claim.lane_id
        if self._ready is None or worker != self.worker_id or not self.may_act():
            return self._ended([(item, self._run(item)) for item in items], lane, None)
        with logs.together():
            ended, late = volley([item.task for item in items], self._ready)
        self._tasks.extend(
            items[one.position]._replace(call=one.call) for one in late
        )  # their places are theirs already
        for _ in late:
            self._tokens.put(True)
        return self._ended([(items[position], outcome) for position, outcome in ended], lane, None)

    def _ended(self, done: Sequence[tuple[_Item, Outcome]], lane: int, began: float | None) -> list[_Item]:
        """A slot has come to the end of these; what it goes on with, if rows of the same lane are held ahead.

        `began`: when the call did, if that was later than it was told to be started.
        """
        now, more = time.monotonic(), False
        took = None if began is None else now - began
        with self._lock:
            for item, outcome in done:
                more |= self._windows.finished(lane, item.claim.id, now, outcome.good, took)
            self._in_flight -= len(done)
            following = self._following(lane, now)
            self._in_flight += len(following)
            for item in following:
                self._windows.started(lane, item.claim.id, now)
            wanted = len(following) < len(done) or self._ahead.low
        for item, outcome in done:
            self._results.put(_Result(item, outcome.record, outcome.patient))
        if wanted:
            self._freed.set()
        if any(outcome.timer for _, outcome in done):
            self.poke()
        elif more:
            self._poked.set()
        return following

    def _following(self, lane: int, now: float) -> list[_Item]:
        if not self._ahead.count:
            return []
        if self.stopping or not self._windows.swift(lane, now):
            self._release(self._ahead.drop(lane))
            return []
        free = self._slots - self._in_flight  # every call under way has a slot, should it need one for itself
        most = min(self._windows.together, self._windows.left(lane), free) if self._ready else 1
        if not self._windows.busy(lane):  # nobody else would ever go on with these; and who asks has come free
            most = max(most, 1)
        rows = (self._ahead.take(lane) for _ in range(most))
        return [row for row in rows if row is not None]

    def _run(self, item: _Item) -> Outcome:
        if item.call is None and (item.worker != self.worker_id or not self.may_act()):
            return Outcome(self._slot_work.release(item.claim))
        try:
            if item.call is None:
                return self._slot_work.run(item.task)
            return item.call.result()
        except Exception:
            log.exception("job %s of pool %s failed in a way that is a defect", item.claim.id, self.pool)
            self._let_go([item.claim], lost=True)  # after five times it is poison
            return Outcome(None, good=False)

    # --- completing ----------------------------------------------------------------------------------

    def _complete(self) -> None:
        while (first := self._results.get()) is not None:
            batch = [first]
            latest = time.monotonic() + FLUSH_LATEST
            while True:
                # Slept through, not waited for: to be woken by each outcome would cost as much as to record it.
                time.sleep(FLUSH_AFTER)
                looked_at = len(batch)
                last = self._gather(batch)
                if last or len(batch) >= FLUSH_COUNT or not self._may_wait(batch[looked_at - 1 :], latest):
                    break
            self._flush(batch)
            if last:
                return

    def _may_wait(self, results: Sequence[_Result], latest: float) -> bool:
        """Whether records may wait for more: a statement costs nearly the same for ten as for a hundred."""
        return self._loaded() and time.monotonic() < latest and all(result.patient for result in results)

    def _gather(self, batch: list[_Result]) -> bool:
        """Add what is there to `batch`; whether that was the end of all."""
        try:
            while len(batch) < FLUSH_COUNT:
                result = self._results.get_nowait()
                if result is None:
                    return True
                batch.append(result)
        except queues.Empty:
            pass
        return False

    def _flush(self, batch: list[_Result]) -> None:
        by_worker: dict[int, list[_Result]] = {}
        for result in batch:
            if result.record is not None:
                by_worker.setdefault(result.item.worker, []).append(result)
        for worker, results in by_worker.items():
            try:
                self._record(worker, [result.record for result in results])
            except Exception:
                # What is not recorded here is given back and done again: sent twice, under one id.
                log.exception("%d outcomes could not be recorded", len(results))
                self._let_go((result.item.claim for result in results), lost=True)
        self._let_go(result.item.claim for result in batch)
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
        # A claim that is under way still brings rows, which slots are needed for.
        if self._threads:
            self._claims_ended.wait(max(0.0, deadline - time.monotonic()))
        with self._lock:  # slots that would go on with these, or drop them, may be in calls that hang
            for lane in self._ahead.lanes():
                self._release(self._ahead.drop(lane))
        while self._busy() and time.monotonic() < deadline:
            time.sleep(0.01)
        for _ in range(self._slots):
            self._tokens.put(False)
        self._results.put(None)
