"""The resident engine of a worker process: registers it, beats, looks for work, and stops in good order.

Threads: a heart (its own connection, so that no slow query can cost the lease), a pump that claims, and a poll that
makes due rows ready and takes back what dead workers hold. In the pools that messages pass the pump itself hears of new
rows, on a connection that another thread opens, and one hears what PostgreSQL says of them where Redis cannot.
What is done with a claim is the subclasses' matter: `BatchEngine` handles a whole claim in the pump itself,
`SlotEngine` gives each row to a thread.
"""

from __future__ import annotations

import logging
import math
import os
import socket
import threading
import time
from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from importlib import metadata
from typing import Final

from esb_workers import drill
from esb_workers.errors import Unavailable, WorkerDeclaredDead
from esb_workers.queues import POOL_IDS, PoolName
from esb_workers.runtime.hints import Ears
from esb_workers.runtime.holdings import Holdings
from esb_workers.runtime.holdings import of as held_of
from esb_workers.runtime.looks import Looks
from esb_workers.runtime.ringer import Ringer
from esb_workers.runtime.teller import CHANNELS
from esb_workers.runtime.wakeup import Wakeup
from esb_workers.settings import Settings
from esb_workers.store import counters, jobs, step_queues, workers
from esb_workers.store.engine import Cursor, Database
from esb_workers.store.jobs import Claim, Key
from esb_workers.store.notices import Listener
from esb_workers.store.step_queues import StepQueue

log = logging.getLogger(__name__)

#: Pause after the database failed to answer, seconds.
DATABASE_PAUSE: Final = 0.5
#: While the pump is busy it still makes timers ready this often, seconds.
DUE_EVERY: Final = 0.1
#: So much sooner than the next known timer must one be that the poll finds, for the pump to be waked, seconds.
SOONER: Final = 0.05
#: The poll looks whether there is anything for the pump to do; by itself the pump does so after as many of its periods.
UNCALLED: Final = 5
#: A claim whose answer takes longer than this is not acted on, seconds: the poll may be about to give it back.
LATE_CLAIM: Final = 4.0
#: Suspects beyond one are looked at again after this, seconds: see runtime.holdings.
SUSPECT_PAUSE: Final = 0.2
#: What is in flight under this process's name for longer, and unknown to it, is given back, seconds.
UNKNOWN_AFTER: Final = 7.0
#: Of what a process has done, what it adds to the figures of all with its heartbeat.
TOLD: Final = ("claimed", "recorded", "superseded")
#: A bell is answered for at most this long, seconds: a drain never blocks a Celery thread for good. Long, for in a
#: steady flow each bell given back is followed by another, which costs some message milliseconds at either end.
DRAIN_SLICE: Final = 60.0


@dataclass
class Figures:
    """What this process has done since it started."""

    claimed: int = 0
    recorded: int = 0
    superseded: int = 0
    swept: int = 0
    lives: int = field(default=0)


class Engine(ABC):
    """The part every pool shares. Start it once; `drain` may be called from any thread."""

    def __init__(
        self,
        pool: PoolName,
        settings: Settings,
        database: Database,
        ringer: Ringer,
        *,
        queue: StepQueue | None = None,
    ) -> None:
        self.pool: Final = pool
        #: What it claims from, and the Celery queue of its bells: the pool's, or a queue of plug-in steps.
        self.pool_id: Final = POOL_IDS[pool] if queue is None else queue.pool
        self.bell: Final[str] = pool if queue is None else queue.bell
        self.settings = settings
        self.database = database
        self.ringer = ringer
        self._line = database.line()
        self.figures = Figures()
        self._told: dict[str, int] = {}
        self.worker_id = 0
        self._last_beat = 0.0  # monotonic moment at which the last good heartbeat was sent
        self._stopping = threading.Event()
        self._claims_ended = threading.Event()
        self._heart_wanted = threading.Event()
        self._poked = Wakeup()
        self._idle = threading.Condition()
        self._idle_count = 0
        self._next_due = 0.0  # monotonic moment of the next look for rows that are due
        self._next_timer = math.inf  # monotonic moment of the next known timer
        self._timers_changed = True
        self._after: defaultdict[str, int] = defaultdict(int)  # the lane whose turn was last, by kind of claim
        self._looks = Looks(messages=pool in CHANNELS, asleep=settings.sweep_seconds * UNCALLED)
        self._ears = Ears(ringer.broker_url, CHANNELS.get(pool), self._poked.set)
        self._listener = Listener(database, CHANNELS[pool], self._told_of_rows) if pool in CHANNELS else None
        self._threads: list[threading.Thread] = []
        self._holdings = Holdings()

    # --- life ----------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start the threads; returns at once, also while the database is away."""
        for name, target in (("heart", self._heart), ("pump", self._pump), ("poll", self._poll)):
            thread = threading.Thread(target=target, name=f"{self.pool}-{name}", daemon=True)
            self._threads.append(thread)
            thread.start()
        self._ears.open()
        if self._listener is not None:
            self._listener.ensure()

    @property
    def stopping(self) -> bool:
        """Whether it was told to claim nothing more."""
        return self._stopping.is_set()

    def quiesce(self) -> None:
        """Claim nothing more; what is under way goes on."""
        self._stopping.set()
        self._ears.close()
        if self._listener is not None:
            self._listener.close()
        self._heart_wanted.set()
        self._poked.set()
        with self._idle:
            self._idle.notify_all()

    def stop(self, grace_seconds: float) -> None:
        """Claim nothing more, let what is under way finish for as long as the grace lasts, and sign off."""
        deadline = time.monotonic() + grace_seconds
        self.quiesce()
        self._finish(deadline)
        for thread in self._threads:
            thread.join(timeout=max(0.1, deadline - time.monotonic()))
        try:
            with self.database.cursor() as cursor:
                self._tell_figures(cursor)
                workers.retire(cursor, self.worker_id)
        except Unavailable:
            log.warning("could not sign off: the lease will run out by itself")

    def _finish(self, deadline: float) -> None:
        """Wait for work under way; `deadline` is monotonic."""

    # --- waking --------------------------------------------------------------------------------------

    def poke(self) -> None:
        """There may be work, or a timer has been set."""
        self._timers_changed = True
        self._poked.set()

    def hear(self) -> None:
        """A bell has come in: look at once. That it is answered for, by `drain`, takes Celery a moment longer."""
        self._poked.set()

    def _told_of_rows(self, _: str) -> None:
        self._looks.told(time.monotonic())
        self._poked.set()

    def drain(self) -> None:
        """What a bell does: wake the pump and wait until it has nothing more to claim for now, for a slice at most.

        To hold the bell meanwhile is the point: bells behind it stay in the queue, where senders see them and send
        no more.
        """
        with self._idle:
            seen = self._idle_count
            # Set before the wait: should the pump go idle on a claim older than this bell, it sees the poke and looks
            # once more, though the bell has returned by then.
            self._poked.set()
            self._idle.wait_for(lambda: self._idle_count > seen or self._stopping.is_set(), timeout=DRAIN_SLICE)

    # --- the heart -----------------------------------------------------------------------------------

    def _heart(self) -> None:
        lease = self.settings.lease_seconds
        while not self._stopping.is_set() or self._busy():
            sent = time.monotonic()
            try:
                with self.database.cursor() as cursor:
                    self._beat(cursor, lease)
                self._last_beat = sent
                self._heart_wanted.wait(lease / 3)
            except WorkerDeclaredDead:
                log.warning("this worker was declared dead; it starts a new life")
                self.worker_id = 0
            except Unavailable as error:
                log.warning("no heartbeat: %s", error)
                self._stopping.wait(DATABASE_PAUSE)
            except Exception:  # without a heart the process would look alive and do nothing, for ever
                log.exception("the heart stumbled")
                self._stopping.wait(DATABASE_PAUSE)
            self._heart_wanted.clear()
            if self._stopping.is_set():
                time.sleep(min(0.2, lease / 3))  # work under way still needs its lease

    def _beat(self, cursor: Cursor, lease: float) -> None:
        if self.worker_id:
            workers.beat(cursor, self.worker_id, lease)
            self._tell_figures(cursor)
            return
        host, version = socket.gethostname(), metadata.version("python-esb")
        self.worker_id = workers.register(cursor, self.pool_id, host, os.getpid(), version, lease)
        self._holdings.begin_anew()
        self.figures.lives += 1
        self._poked.set()

    def _tell_figures(self, cursor: Cursor) -> None:
        """Add what this process has done since it last told to the figures of all."""
        told, now = self._told, asdict(self.figures)
        counts = {name: now[name] - told.get(name, 0) for name in TOLD if now[name] > told.get(name, 0)}
        if counts:
            counters.add(cursor, self.pool_id, counts)
        self._told = now

    def may_act(self) -> bool:
        """Whether the lease surely holds: no call is started on a lease that may have run out meanwhile."""
        return self.worker_id != 0 and time.monotonic() - self._last_beat < self.settings.lease_seconds * 0.8

    def _busy(self) -> bool:
        """Whether work is under way."""
        return False

    # --- the pump ------------------------------------------------------------------------------------

    def _pump(self) -> None:
        try:
            self._pump_until_stopped()
        finally:
            self._ears.hang_up()
            self._claims_ended.set()

    def _pump_until_stopped(self) -> None:
        while not self._stopping.is_set():
            try:
                if not self.may_act():
                    self._poked.wait(0.05)
                    self._poked.clear()
                    continue
                self._make_due()
                self._poked.clear()
                if not self._work():
                    self._rest()
            except WorkerDeclaredDead:
                self.worker_id = 0
                self._heart_wanted.set()
            except Unavailable as error:
                log.warning("the pump waits: %s", error)
                self._stopping.wait(DATABASE_PAUSE)
            except Exception:
                log.exception("the pump stumbled")
                self._stopping.wait(DATABASE_PAUSE)

    @abstractmethod
    def _work(self) -> bool:
        """Claim and start what can be started now; False when there was nothing to claim."""

    def _loaded(self) -> bool:
        return self._looks.loaded(time.monotonic())

    def _flowing(self) -> bool:
        """Whether rows come steadily, if not fast."""
        now = time.monotonic()
        return self._looks.loaded(now) or self._looks.steady(now)

    def _rest(self) -> None:
        """Sleep until a bell, the next timer, or a look by itself. Under load, look again at once: without a bell."""
        if self._loaded():
            return
        if not self._looks.steady(time.monotonic()):
            with self._idle:
                self._idle_count += 1
                self._idle.notify_all()
        if self._poked.is_set():
            return
        if self._timers_changed:  # also by this pass itself: so it is asked now, and not before the claim
            self._timers_changed = False
            with self.database.cursor() as cursor:
                seconds = jobs.seconds_until_due(cursor, self.pool_id)
            self._next_timer = math.inf if seconds is None else time.monotonic() + seconds
        # A row that is due but behind a closed gate, or in another's hands, must not become a busy loop.
        now = time.monotonic()
        self._sleep(min(self._looks.rest(now), max(self._next_timer - now, 0.005)))

    def _sleep(self, seconds: float) -> None:
        """Until something has come up, or so long."""
        if self._poked.wait(seconds, self._ears.fileno()) and self._ears.heard():
            self._looks.told(time.monotonic())

    def _make_due(self) -> None:
        """Make timers ready: when the next known one is due, and now and then for those that others have set."""
        now = time.monotonic()
        looks = now >= self._next_due
        # The next one is known if the pump has rested since the last look; under load it does not, and nobody knows.
        if now >= self._next_timer or (looks and self._timers_changed):
            self._next_timer, self._timers_changed = math.inf, True
            with self.database.cursor() as cursor:
                jobs.due(cursor, self.pool_id)
        if looks:
            self._next_due, self._timers_changed = now + DUE_EVERY, True
            self._ears.heard()  # what is said while nobody rests has no news, and must not pile up

    def _claim(
        self, limit: int, room: int, rooms: dict[int, int] | None = None, *, lease_seconds: float, turn: str = ""
    ) -> list[Claim]:
        """Claim; `turn`: lanes get theirs among the claims that bear the same word."""
        worker, asked = self.worker_id, time.monotonic()
        if not worker:
            return []
        with self._line.cursor() as cursor:
            claims = jobs.claim(
                cursor,
                self.pool_id,
                worker,
                limit,
                room,
                rooms=rooms,
                after_lane=self._after[turn],
                lease_seconds=lease_seconds,
                whole=self.pool in ("routing", "delivery"),
            )
            if claims and (took := time.monotonic() - asked) > LATE_CLAIM:
                log.warning("a claim took %.1f s; it is given back", took)
                jobs.give_back(cursor, worker, dict.fromkeys(map(held_of, claims), False))
                return []
            claims, others = self._holdings.with_one_suspect(claims)
            if others:
                jobs.give_back(cursor, worker, dict.fromkeys(others, False), SUSPECT_PAUSE)
                self._timers_changed = True
        if claims:
            self._looks.found(len(claims), time.monotonic())
            self._holdings.take(claims)
            drill.crash_point(drill.AFTER_CLAIM)
            self.figures.claimed += len(claims)
            self._after[turn] = last_turn({c.lane_id for c in claims}, self._after[turn])
            if len(claims) == limit:
                self.ringer.ring(self.bell)  # there is more than this process takes: wake the next one
        return claims

    def _let_go(self, claims: Iterable[Claim], *, lost: bool = False) -> None:
        """See Holdings."""
        self._holdings.let_go(claims, lost=lost)

    # --- the poll ------------------------------------------------------------------------------------

    def _poll(self) -> None:
        while not self._stopping.wait(self.settings.sweep_seconds):
            try:
                self._sweep()
            except Unavailable:
                pass  # the heart says so already
            except Exception:
                log.exception("the sweep stumbled")

    def _sweep(self) -> None:
        with self.database.cursor() as cursor:
            wanted = jobs.wanted(cursor, [self.pool_id], self.worker_id, UNKNOWN_AFTER)
            swept = jobs.sweep(cursor, self.settings.lease_seconds) if wanted.lost else []
            if wanted.unknown:
                swept += self._give_back(cursor)
            self.figures.swept += len(swept)
            if swept:
                log.warning("took back %d jobs whose workers died or lost them", len(swept))
                self._ring_for({pool for _, pool in swept}, cursor)
                wanted = wanted._replace(aside=True)  # the fifth loss sets a row aside
            if wanted.due:
                jobs.due(cursor, self.pool_id)
            freed = jobs.unblock(cursor, wanted) if self.pool in CHANNELS else 0
        if wanted.wake is not None and time.monotonic() + wanted.wake < self._next_timer - SOONER:
            self.poke()  # somebody else has set this timer
        elif wanted.ready or wanted.due or swept or freed:
            self._poked.set()

    def _ring_for(self, pools: set[int], cursor: Cursor) -> None:
        bells: list[str] = [name for name, number in POOL_IDS.items() if number in pools]
        if pools - set(POOL_IDS.values()):
            bells += [queue.bell for queue in step_queues.all_of(cursor) if queue.pool in pools]
        for name in bells:
            self.ringer.ring(name)

    def _give_back(self, cursor: Cursor) -> list[tuple[str, int]]:
        """What the database takes to be in our hands and is not: our lease is good, so no sweep would ever take it.

        It gets there when the connection breaks between the commit of a claim and its answer, or before the rows
        could be prepared. Asked first and compared then: what was claimed that long ago is among the holdings by now.
        """
        worker = self.worker_id
        if not worker:
            return []
        unknown = self._holdings.unknown(jobs.held(cursor, worker, UNKNOWN_AFTER))
        if not unknown:
            return []
        given = jobs.give_back(cursor, worker, unknown)
        self._holdings.given_back(unknown)
        return given

    def promote(self, keys: Sequence[Key]) -> None:
        """After the commit that freed keys: let their next rows go."""
        if keys:
            with self.database.cursor() as cursor:
                if jobs.promote(cursor, keys):
                    self._poked.set()


def last_turn(lanes: set[int], after: int) -> int:
    """The lane whose turn came last, of those taken in turn after `after` and round to the beginning."""
    return max({lane for lane in lanes if lane <= after} or lanes)
