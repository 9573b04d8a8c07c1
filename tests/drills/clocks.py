"""Drills on time: a worker whose clock is wrong, and several schedulers of which one is stopped."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

from tests.drills.catalogue import drill
from tests.drills.report import NotRun
from tests.drills.scene import LEASE, SWEEP, Scene
from tests.drills.workload import Plan
from tests.support.receiver import Hit, Reply

#: How far the clocks of workers are off, in either direction, seconds.
SKEW = 600


@drill(
    11,
    "clock-skew",
    "workers whose clocks are ten minutes fast and slow: leases, timers and order follow the database's clock alone",
)
def clock_skew(scene: Scene) -> None:
    library = _skewing_library(scene.folder)
    scene.start_bus()
    for pool in ("routing", "delivery"):
        for skew in (SKEW, -SKEW):
            scene.spawn("worker", pool, prefix=("env", f"LD_PRELOAD={library}", f"SKEW_SECONDS={skew}"))
    alive = "select pool, count(*) from worker where pool in (1, 2) and dead_at is null and beat_until > now() group by pool"
    scene.wait(lambda: dict(scene.sql(alive)) == {1: 3, 2: 3}, 60, "the skewed workers")
    scene.bus.kill("esb worker routing"), scene.bus.kill("esb worker delivery")  # the skewed ones have the first word
    failed: set[str] = set()

    def fails_once(hit: Hit) -> Reply:
        key = hit.key or ""
        if int(hit.json["n"]) % 5 == 0 and key not in failed:
            failed.add(key)
            return Reply(503)  # a retry: a timer set by whichever worker it was
        return Reply()

    scene.receivers["a"].answer = fails_once
    later = _Later()
    with scene.load(Plan(per_second=40, extra=later.fields)):
        time.sleep(2 if scene.quick else 8)
    scene.healed()
    scene.settle(within=LEASE + SWEEP + 15)
    later.check(scene, late=2 * SWEEP + 3)
    claims = scene.sql("select count(distinct worker_id) from attempt")[0][0]
    scene.result.notes.append(f"{claims} workers had attempts that failed")
    dead = scene.sql("select count(*) from worker where dead_at is not null and pool in (1, 2)")[0][0]
    scene.require(dead <= 2, "drill", f"{dead} workers were declared dead; two were killed")


def _skewing_library(folder: Path) -> Path:
    """What sets the wall clock of a process off, compiled. Raises NotRun without a compiler, or if it has no effect."""
    compiler = shutil.which("cc")
    if compiler is None:
        raise NotRun("there is no C compiler, cc, which the skewed clock needs (Debian: apt-get install gcc)")
    library = folder / "skew.so"
    source = Path(__file__).with_name("skew.c")
    subprocess.run([compiler, "-shared", "-fPIC", "-O2", "-o", library, source, "-ldl"], check=True)
    told = subprocess.run(
        [sys.executable, "-c", "import time; print(time.time())"],
        env=os.environ | {"LD_PRELOAD": str(library), "SKEW_SECONDS": str(SKEW)},
        capture_output=True,
        check=True,
    )
    if abs(float(told.stdout) - time.time() - SKEW) > SKEW / 10:
        raise NotRun("a preloaded library does not change the clock here")
    return library


@drill(17, "three-schedulers", "three schedulers, one of them stopped for good: each timer fires once and in time")
def three_schedulers(scene: Scene) -> None:
    scene.start_bus()
    scene.warm_up(20)
    for _ in range(2):
        scene.spawn("scheduler")
    alive = "select count(*) from worker where pool = 0 and dead_at is null and beat_until > now()"
    scene.wait(lambda: scene.sql(alive)[0][0] == 3, 30, "three schedulers")
    later = _Later()
    with scene.load(Plan(per_second=40, extra=later.fields)):
        time.sleep(2.0)
        (own,) = scene.bus.processes("esb scheduler")
        own.suspend()
        time.sleep(4 if scene.quick else 10)
    scene.healed()
    try:
        scene.settle(within=LEASE + SWEEP + 8)
    finally:
        own.resume()
    later.check(scene, late=2 * SWEEP + 3)


class _Later:
    """Every third message is due one to four seconds after it is sent."""

    def __init__(self) -> None:
        self.due: dict[int, float] = {}  # on the driver's monotonic clock

    def fields(self, n: int) -> dict[str, str]:
        if n % 3 or n % 2:  # an odd one may be sent again, with another time: a conflict
            return {}
        delay = 1.0 + n % 4
        self.due[n] = time.monotonic() + delay
        return {"deliverAt": (datetime.now(UTC) + timedelta(seconds=delay)).isoformat()}

    def check(self, scene: Scene, late: float) -> None:
        """None before its time, none later than `late` after it."""
        first: dict[int, float] = {}
        for arrival in scene.journal.read():
            first.setdefault(arrival.n, arrival.at)
        # A keyed one may have to wait for those before it.
        keyed = {s.n for s in scene.sent if s.key is not None}
        lags = {n: first[n] - due for n, due in self.due.items() if n in first}
        early = {n: lag for n, lag in lags.items() if lag < -0.05}
        slow = {n: lag for n, lag in lags.items() if lag > late and n not in keyed}
        scene.require(
            not early, "I9 states", f"{len(early)} timers fired early, one by {-min(early.values(), default=0):.1f} s"
        )
        scene.require(
            not slow, "I1 lost", f"{len(slow)} timers fired late, one by {max(slow.values(), default=0):.1f} s"
        )
        scene.result.notes.append(f"{len(lags)} timers, the latest by {max(lags.values(), default=0):.1f} s")
