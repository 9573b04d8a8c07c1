"""An engine for work that waits on the outside world: delivery, orchestration, health.

The pump claims only what a free slot starts now, and, where the work allows it, some rows ahead of that from lanes
whose calls are quick; a few quick calls it makes itself when nothing else is to do. Slots run calls with no transaction
open; runtime.completer records what came of them.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Collection, Sequence
from typing import Any, NamedTuple

from tenacity import retry, retry_if_exception_type, stop_after_delay, wait_random_exponential

from esb_workers import drill, logs
from esb_workers.errors import Unavailable
from esb_workers.queues import PoolName
from esb_workers.runtime.ahead import Ahead
from esb_workers.runtime.completer import Completer, Result
from esb_workers.runtime.engine import Engine
from esb_workers.runtime.ringer import Ringer
from esb_workers.runtime.slotwork import Outcome, Ready, SlotWork
from esb_workers.runtime.taskqueue import TaskQueue
from esb_workers.runtime.volley import PATIENCE, Call, volley
from esb_workers.runtime.windows import ABREAST, BRISK, LaneWindows
from esb_workers.settings import Settings
from esb_workers.store.engine import Database
from esb_workers.store.jobs import Claim, Done
from esb_workers.store.step_queues import StepQueue

log = logging.getLogger(__name__)

#: How long a claim waits under load for slots to come free and rows to gather, seconds: see runtime.pace.
GATHER = 0.003
#: While rows are claimed ahead, and others had none, those are looked for this often, seconds.
LOOK_ASIDE = 0.025


class _Item(NamedTuple):
    worker: int
    claim: Claim
    task: Any
    call: Call[Outcome] | None = None  # sent already: its answer is still to be read


class _Task(NamedTuple):
    """What a slot begins with; `rowing`: and then it goes on with what is held ahead."""

    items: list[_Item]
    rowing: int = 0  # how many of those that row it stands for


_End = tuple[_Item, Outcome, float]  # and the monotonic moment at which its call ended
_Ends = Sequence[_End]


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
        `release` gives rows back, and `ready`, by which one slot has several calls under way.
        """
        super().__init__(pool, settings, database, ringer, queue=queue)
        self._slot_work = work
        self._slots = slots
        self._lock = threading.Lock()
        self._in_flight = 0
        self._swift_from = 0.0  # monotonic moment from which every swift lane is looked at under load
        self._aside_at = 0.0  # monotonic moment from which others than swift lanes are looked for again
        self._full = False  # a claim of the last look took all it was allowed: there is more, nothing has to gather
        self._windows = LaneWindows(slots)
        self._deep, self._ready = ahead > 0 and ready is not None, ready
        self._together = max(1, slots // 2 // ABREAST)
        self._ahead: Ahead[_Item] = Ahead(ahead)
        self._rowing = 0  # slots that are at work on rows of swift lanes, one volley after the other
        self._queue: TaskQueue[_Task] = TaskQueue()
        self._completer = Completer(f"{pool}-completer", self._record, self._let_go, self._flowing, self._settled)
        self._freed = threading.Event()
        self._unrecorded = 0

    def start(self) -> None:
        """Start the slots and the completer, then the rest."""
        for number in range(self._slots):
            threading.Thread(target=self._slot, name=f"{self.pool}-slot-{number}", daemon=True).start()
        self._completer.start()
        super().start()

    # --- claiming ------------------------------------------------------------------------------------

    def _work(self) -> bool:
        self._wait_for_slots()
        self._full = False
        started = self._claim_ahead()
        free = self._slots - self._in_flight
        busy = started > 0 or not self._ahead.low
        if free <= 0 or (busy and time.monotonic() < self._aside_at):
            return True
        others = self._claim_and_start(free)
        # Where little is to do, a claim that brought less than it was allowed has brought all; what comes after it is
        # told of, rung for or looked for. Another claim would cost as much as the first.
        return started > 0 or (others > 0 and (self._full or self._loaded()))

    def _claim_ahead(self) -> int:
        """Claim rows of swift lanes ahead of free slots when few of them are left; how many."""
        with self._lock:
            now = time.monotonic()
            self._give_back_slow(now)
            wanted = self._ahead.low and (self._rowing > 0 or self._in_flight < self._slots)
            lanes = self._swift_lanes(now) if wanted else ()
            # Each gets its part of what there is room for, or the backlog of one would be first in everybody's turn.
            most = max(self._ahead.room // max(1, len(self._windows.swift_with_more(now))), self._together)
            rooms = {lane: min(self._ahead.room_in(lane), most) for lane in lanes}
            limit = min(self._ahead.room, sum(rooms.values()))
        if not limit:
            return 0
        started = self._start(limit, 0, rooms, turn="ahead")
        self._swift_from = 0.0 if started else now + LOOK_ASIDE
        return started

    def _swift_lanes(self, now: float) -> Collection[int]:
        """The lanes whose rows are claimed ahead.

        Under load that is every swift lane: a few rows of each of a hundred are as many as a hundred of one.
        """
        if not self._deep:
            return ()
        if self._loaded() and now >= self._swift_from:
            return self._windows.swift_lanes(now)
        return self._windows.swift_with_more(now)

    def _give_back_slow(self, now: float) -> None:
        """Give back what is held ahead of lanes that are swift no more, or that no slot is left to go on with."""
        for lane in self._ahead.lanes():
            if not self._rowing or not self._windows.swift(lane, now):
                self._release(self._ahead.drop(lane))

    def _release(self, items: Sequence[_Item]) -> None:
        for item in items:
            self._complete(item, self._slot_work.release(item.claim))

    def _claim_and_start(self, free: int) -> int:
        with self._lock:
            now = time.monotonic()
            # Lanes that rows are claimed ahead of have their own claim.
            swift = dict.fromkeys((*self._ahead.lanes(), *self._swift_lanes(now)), 0)
            proven = {lane: room for lane, room in self._windows.proven(now).items() if room and lane not in swift}
            share, room, rooms = self._windows.unproven(now)
        # One claim for all lanes as long as it cannot give the unproven ones more than their share; else one for each.
        together = min(free, share)
        if together and together >= free // 3:
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
        self._full |= len(claims) == limit
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
            at_once = not ahead and self._may_call(items, now)
            if ahead:
                begun = self._put_ahead(items, now)
            else:
                begun = [_Task([item]) for item in items]
                self._begin(items, now)
        if at_once:
            self._call(items)
            return
        self._queue.put_gently(begun)

    def _may_call(self, items: Sequence[_Item], now: float) -> bool:
        """Whether the pump makes these calls itself: nothing else is to do, and they end as soon as a slot wakes."""
        alone = self._deep and not self._in_flight and not self._ahead.count and not self._loaded()
        alone = alone and len(items) <= self._together
        return alone and all(self._windows.brisk(item.claim.lane_id, now) for item in items)

    def _call(self, items: list[_Item]) -> None:
        """Make them. What takes long gets a slot each."""
        done, _ = self._volley(items, BRISK)
        self._ended(done, None, rowing=0)  # nothing is held ahead, so there is nothing to go on with

    def _begin(self, items: list[_Item], now: float) -> None:
        self._in_flight += len(items)
        for item in items:
            self._windows.started(item.claim.lane_id, item.claim.id, now)

    def _put_ahead(self, items: list[_Item], now: float) -> list[_Task]:
        """Hold `items` ahead; answers what further slots are to begin with, if not enough of them are rowing."""
        for item in items:
            self._ahead.put(item.claim.lane_id, item)
        tasks: list[_Task] = []
        while self._rowing < ABREAST and (begun := self._next_rows(now)):
            tasks.append(_Task(begun, self._rows(begun)))
        return tasks

    def _next_rows(self, now: float) -> list[_Item]:
        """The rows held ahead that a slot goes on with, begun; lanes take turns."""
        if self.stopping:
            self._drop_ahead()
            return []
        lanes = self._ahead.lanes()
        alone = self._ahead.count >= self._together * ABREAST and all(self._windows.brisk(lane, now) for lane in lanes)
        if alone and self._rowing:
            return []  # who rows now is to go on alone
        # Each call has a slot, should it need its own.
        most = min(self._together * (ABREAST if alone else 1), self._slots - self._in_flight)
        rows: list[_Item] = []
        for lane in lanes:
            if not self._windows.swift(lane, now):  # since it was claimed
                self._release(self._ahead.drop(lane))
                continue
            rows += self._ahead.take(lane, min(most - len(rows), self._windows.left(lane)))
            if len(rows) >= most:
                break
        self._begin(rows, now)
        return rows

    def _rows(self, rows: list[_Item]) -> int:
        """Note that a slot rows these; how many of those that row it stands for."""
        stands_for = min(1, len(rows)) if len(rows) <= self._together else ABREAST
        self._rowing += stands_for
        return stands_for

    def _drop_ahead(self) -> None:
        for lane in self._ahead.lanes():
            self._release(self._ahead.drop(lane))

    # --- slots ---------------------------------------------------------------------------------------

    def _slot(self) -> None:
        items: list[_Item] = []
        rowing = 0
        while True:
            if not items:
                task = self._queue.take()
                if task is None:
                    return
                items, rowing = task
            # Who rows never waits for a single call: others would wait behind it.
            done, began = self._volley(items) if rowing else self._single(items[0])
            items, rowing = self._ended(done, began, rowing=rowing)

    def _single(self, item: _Item) -> tuple[_Ends, float | None]:
        """Do one; what came of it, and when its call began, if that was later than it was told to be started."""
        began = None if item.call else time.monotonic()
        outcome = self._run(item)
        return [(item, outcome, time.monotonic())], began

    def _volley(self, items: list[_Item], patience: float = PATIENCE) -> tuple[_Ends, float | None]:
        """Do several at once; what came of those that have ended in time."""
        worker = self.worker_id
        if self._ready is None or any(item.worker != worker for item in items) or not self.may_act():
            return [(item, self._released(item), time.monotonic()) for item in items], None
        with logs.together():
            ended, late = volley([item.task for item in items], self._ready, patience)
        # Their places are theirs already.
        self._queue.put([_Task([items[one.position]._replace(call=one.call)]) for one in late])
        return [(items[one.position], one.result, one.at) for one in ended], None

    def _ended(self, done: _Ends, began: float | None, *, rowing: int) -> tuple[list[_Item], int]:
        """A slot has come to the end of these; what of the rows held ahead it goes on with, and whether it rows now."""
        now, more = time.monotonic(), False
        with self._lock:
            for item, outcome, at in done:
                took = None if began is None else at - began
                more |= self._windows.finished(item.claim.lane_id, item.claim.id, at, outcome.good, took)
            self._in_flight -= len(done)
            self._rowing -= rowing
            following = self._next_rows(now) if self._ahead.count and self._rowing < ABREAST else []
            rowing = self._rows(following)
            wanted = len(following) < len(done) or self._ahead.low
            more |= self._ahead.count > 0 and not self._rowing  # nobody goes on with these: the pump gives them back
        for item, outcome, _ in done:
            self._complete(item, outcome.record, patient=outcome.patient)
        if wanted:
            self._freed.set()
        if any(outcome.timer for _, outcome, _ in done):
            self.poke()
        elif more:
            self._poked.set()
        return following, rowing

    def _run(self, item: _Item) -> Outcome:
        if item.call is None and (item.worker != self.worker_id or not self.may_act()):
            return self._released(item)
        try:
            if item.call is None:
                return self._slot_work.run(item.task)
            return item.call.result()
        except Exception:
            log.exception("job %s of pool %s failed in a way that is a defect", item.claim.id, self.pool)
            self._let_go([item.claim], lost=True)  # after five times it is poison
            return Outcome(None, good=False)

    def _released(self, item: _Item) -> Outcome:
        return Outcome(self._slot_work.release(item.claim), good=None)

    # --- completing ----------------------------------------------------------------------------------

    def _complete(self, item: _Item, record: Any, *, patient: bool = False) -> None:
        self._completer.put(Result(item.worker, item.claim, record, patient))

    def _settled(self, results: Sequence[Result]) -> None:
        with self._lock:
            self._unrecorded -= len(results)
        if any(result.record is not None and not result.patient for result in results):
            self._poked.set()  # a place of a limit may have come free, a row may be ready again

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
            self._drop_ahead()
        while self._busy() and time.monotonic() < deadline:
            time.sleep(0.01)
        self._queue.end(self._slots)
        self._completer.end()
