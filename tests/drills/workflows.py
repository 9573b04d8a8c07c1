"""Drills on workflows: hundreds of runs under way while workers, broker and database die around them."""

from __future__ import annotations

import random
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import psutil
import psycopg2

from esb_workers import drill as crash
from tests.drills.catalogue import drill
from tests.drills.database import postmaster, returned_at
from tests.drills.runs import Runs
from tests.drills.scene import LEASE, Scene
from tests.drills.workers import at_work

ROLE, POOL = "esb worker orchestration", 3
#: Crash points on the way of a strand; at the others the process dies that accepts a run.
IN_WORKERS = (crash.AFTER_CLAIM, crash.AFTER_CALL_BEFORE_RECORD, crash.MID_BATCH)
#: From a worker's death until everything it held is in other hands or free to be, seconds.
RECOVERY = LEASE + 5.0
#: Over how long a label's runs get their signals, seconds: until processes that are started for it have come to it.
SPREAD = 15.0


@drill(
    21,
    "workflow-kills",
    "workers killed at random under 500 runs, the broker flushed, the database crashed: all end as if nothing had happened",
    quick=True,
)
def workflow_kills(scene: Scene) -> None:
    count, kills = (40, 3) if scene.quick else (500, 24)
    scene.start_bus("--workers", "orchestration=2", receivers=())
    runs, chance = Runs(scene), random.Random(21)
    numbers = list(range(count))
    runs.start(numbers[: count * 4 // 5])
    late = threading.Thread(target=runs.start, args=(numbers[count * 4 // 5 :],), daemon=True)
    late.start()
    with _deaths(scene) as deaths:
        for number in range(1, kills + 1):
            victims = scene.wait(lambda: at_work(scene, POOL, ROLE), 30, "a worker at work")
            time.sleep(0.3 + chance.random())
            deaths.kill(chance.choice(victims))
            if number % 3 == 0:
                scene.redis().flushall()
            if number == 1:  # all are started by then, or soon
                late.join(60)
                chance.shuffle(numbers)
                signals = threading.Thread(target=_signal, args=(runs, numbers, count / 20), daemon=True)
                signals.start()
            if number % 9 == 0:
                _crash_database(scene, deaths)
        scene.healed()
        scene.result.notes.append(f"{runs.under_way()} runs under way after the last kill")
        signals.join(180)
        runs.settle(patience=180)
        deaths.judge()


@drill(
    22,
    "workflow-crash-points",
    "under 500 runs, processes die at each of the crash points, again and again: all end as if nothing had happened",
)
def workflow_crash_points(scene: Scene) -> None:
    count, deaths_each = (40, 1) if scene.quick else (500, 4)
    bus = scene.start_bus(receivers=())
    runs = Runs(scene)
    share = count // len(crash.LABELS)
    with _deaths(scene) as deaths:
        for turn, label in enumerate(crash.LABELS):
            if label not in IN_WORKERS:  # the API is armed, which is stopped for that: by nobody's death
                with deaths.excused():
                    bus.stop()
                    bus.start(crash_at=label)
            before, so_far = set(_pids(scene)), deaths.count
            numbers = range(turn * share, (turn + 1) * share)
            runs.start(numbers)
            with runs.signalled(numbers, share / SPREAD):
                if label in IN_WORKERS:
                    # All at once: to start takes them seconds, and there must be work left when the last has.
                    armed = [scene.spawn("worker", "orchestration", crash_at=label) for _ in range(deaths_each)]
                    for process in armed:
                        deaths.expect(process)
            died = len(before - set(_pids(scene))) + deaths.count - so_far
            scene.require(died > 0, "drill", f"nothing died at {label}")
            scene.result.notes.append(f"{label}: {died} died, {runs.under_way()} runs under way")
        scene.healed()
        runs.settle(patience=120)
        deaths.judge()


def _signal(runs: Runs, numbers: list[int], per_second: float) -> None:
    with runs.signalled(numbers, per_second):
        pass


def _pids(scene: Scene) -> list[int]:
    return [p.pid for role in ("esb worker", "esb api") for p in scene.bus.processes(role)]


def _crash_database(scene: Scene, deaths: Deaths) -> None:
    with deaths.excused():
        postmaster(scene).send_signal(signal.SIGQUIT)
        returned_at(scene)


class Deaths:
    """Workers that died, and how long what they held stayed theirs. The database's absences are not counted."""

    def __init__(self, scene: Scene) -> None:
        self._scene = scene
        self._open: dict[int, float] = {}  # worker id -> when it died
        self._lock = threading.Lock()
        self.took: list[float] = []
        self.count = 0

    def kill(self, process: psutil.Process) -> None:
        """`kill -9`."""
        process.kill()
        self._note(process.pid)

    def expect(self, process: psutil.Popen, seconds: float = 60.0) -> None:
        """Wait until a process has killed itself."""
        try:
            process.wait(seconds)
        except psutil.TimeoutExpired:
            self._scene.require(False, "drill", "a process with a crash point did not come to it")
            return
        self._note(process.pid)

    def _note(self, pid: int) -> None:
        rows = self._scene.sql("select id from worker where pid = %s and pool = %s order by id desc limit 1", pid, POOL)
        with self._lock:
            self.count += 1
            self._open |= {id_: time.monotonic() for (id_,) in rows}

    @contextmanager
    def excused(self) -> Iterator[None]:
        """The time of the block does not count."""
        began = time.monotonic()
        yield
        with self._lock:
            self._open = {id_: at + time.monotonic() - began for id_, at in self._open.items()}

    def look(self) -> None:
        """Whose strands are all free again?"""
        with self._lock:
            ids = list(self._open)
        held = {id_ for (id_,) in self._scene.sql("select distinct worker_id from job where state = 'f'")}
        with self._lock:
            for id_ in set(ids) - held:
                self.took.append(time.monotonic() - self._open.pop(id_))

    def judge(self) -> None:
        """Everything a dead worker held was free in time."""
        self._scene.wait(lambda: not self._open, RECOVERY, "the recovery of all that the dead held")
        longest = max(self.took, default=0.0)
        self._scene.result.recovery = longest
        text = f"{self.count} deaths; what they held was free again after {longest:.1f} s at most"
        self._scene.result.notes.append(text)
        self._scene.require(longest <= RECOVERY, "recovery", f"{text}, may be {RECOVERY:.0f} s")


@contextmanager
def _deaths(scene: Scene) -> Iterator[Deaths]:
    """Watched during the block."""
    deaths, stop = Deaths(scene), threading.Event()

    def watch() -> None:
        while not stop.wait(0.2):
            try:
                deaths.look()
            except (psycopg2.Error, AssertionError):  # the bus is away, or not up again yet
                continue

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield deaths
    finally:
        stop.set()
        thread.join(10)
