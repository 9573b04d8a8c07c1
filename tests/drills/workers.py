"""Drills on worker processes: killed, stopped for longer than their lease, restarted in turn."""

from __future__ import annotations

import math
import random
import time

import psutil

from tests.drills.catalogue import drill
from tests.drills.footprint import Footprint
from tests.drills.scene import LEASE, SWEEP, Scene
from tests.drills.workload import Plan
from tests.support.receiver import Reply


@drill(
    1,
    "kill-worker",
    "a worker killed at any moment loses nothing; its work goes on within lease + sweep + 5 s",
    quick=True,
)
def kill_worker(scene: Scene) -> None:
    rounds = 3 if scene.quick else 50
    # A kill leaves another worker of the pool at work: what is measured is how soon it goes on with the work of the
    # dead one, not how long this machine takes to start a process.
    scene.start_bus("--workers", "delivery=3", "--workers", "routing=2")
    scene.receivers["a"].answer = lambda hit: Reply(delay=0.02)
    scene.warm_up(20)
    chance = random.Random(1)
    held: dict[str, float] = {}
    with scene.load(Plan(per_second=20)):
        for number in range(rounds):
            pool, role = (2, "esb worker delivery") if number % 3 else (1, "esb worker routing")
            scene.wait(lambda pool=pool, role=role: len(at_work(scene, pool, role)) > 1, 60, f"two of {role} at work")
            time.sleep(0.5 + chance.random())
            victim = chance.choice(at_work(scene, pool, role))
            victim.kill()
            killed = time.monotonic()
            held |= dict.fromkeys(_held_by(scene, victim.pid), killed)
        scene.healed()
    scene.settle(within=LEASE + SWEEP + 5)
    _require_taken_over(scene, held)


def _held_by(scene: Scene, pid: int) -> list[str]:
    """Deliveries that a dead process had under way."""
    rows = scene.sql(
        "select id::text from job where state = 'f' and pool = 2 and worker_id ="
        " (select max(id) from worker where pid = %s and pool = 2)",
        pid,
    )
    return [identity for (identity,) in rows]


def _require_taken_over(scene: Scene, held: dict[str, float]) -> None:
    """Each delivery that a victim lost arrived once more, in time; `held`: when a worker that held it last died."""
    # A victim's last commit may have come through after all: then it was held, and not lost.
    lost = {identity for (identity,) in scene.sql("select delivery_id::text from attempt where outcome = 'unknown'")}
    went_on = dict.fromkeys(held.keys() & lost, math.inf)
    for arrival in scene.journal.read():
        if arrival.delivery in went_on and arrival.at > held[arrival.delivery]:
            went_on[arrival.delivery] = min(went_on[arrival.delivery], arrival.at - held[arrival.delivery])
    scene.result.notes.append(f"{len(went_on)} deliveries were taken over from killed workers")
    slowest = max(went_on.values(), default=0.0)
    scene.result.recovery = max(scene.result.recovery or 0.0, slowest)
    within = LEASE + SWEEP + 5
    scene.require(slowest <= within, "recovery", f"a delivery of a killed worker went on after {slowest:.1f} s")


@drill(
    2,
    "lost-bell",
    "a bell that dies with the worker that took it off the queue delays work by one sweep, no more",
    quick=True,
)
def lost_bell(scene: Scene) -> None:
    bus = scene.start_bus()
    scene.warm_up(20)
    for role in ("worker delivery", "worker routing") * (1 if scene.quick else 3):
        (victim,) = scene.wait(lambda role=role: bus.processes(role), 20, f"a {role}")
        victim.suspend()
        with scene.load(Plan(senders=1, per_second=20)) as load:
            scene.wait(lambda load=load: load.accepted >= 8, 10, "messages sent to a stopped worker")
        victim.kill()  # Redis has answered its pending BRPOP by now: the bell dies in its socket
        scene.healed()
        scene.settle(within=LEASE + SWEEP + 5)


@drill(8, "paused-worker", "a worker that wakes up after its lease was lost can record nothing; another did the work")
def paused_worker(scene: Scene) -> None:
    bus = scene.start_bus("--workers", "delivery=2")
    scene.warm_up(20)
    scene.receivers["a"].answer = lambda hit: Reply(delay=0.3)
    for _ in range(1 if scene.quick else 3):
        with scene.load(Plan(per_second=20)):  # a key takes three a second, with calls of 0.3 s
            time.sleep(1.5)
            victim = bus.processes("worker delivery")[0]
            victim.suspend()
            time.sleep(LEASE * 2.5)
            victim.resume()
            scene.healed()
            time.sleep(1.0)
        scene.settle(within=LEASE + SWEEP + 5)
    lost = scene.sql("select count(*) from attempt where outcome in ('unknown', 'superseded')")[0][0]
    scene.require(lost > 0, "drill", "the stopped worker held nothing: the drill proved nothing")
    declared = scene.sql("select count(*) from worker where pool = 2 and dead_at is not null")[0][0]
    scene.require(declared > 0, "I5 fencing", "nobody declared the stopped worker dead")


@drill(
    16,
    "rolling-restart",
    "every process replaced under load, by SIGTERM or by the kill after it: no 5xx, nothing late or lost",
)
def rolling_restart(scene: Scene) -> None:
    bus = scene.start_bus("--workers", "delivery=2", "--workers", "routing=2")
    scene.warm_up()
    before = Footprint.of(scene)
    scene.receivers["a"].answer = lambda hit: Reply(delay=0.05)
    with scene.load(Plan(per_second=50)) as load:
        for role in ("worker routing", "worker delivery", "scheduler"):
            for process in bus.processes(role):
                process.terminate()
                _replaced(scene, role, process)
        for process in bus.processes("worker delivery")[:1]:  # the impatient way: SIGTERM, and SIGKILL after 0.2 s
            process.terminate()
            time.sleep(0.2)
            process.kill()
            _replaced(scene, "worker delivery", process)
        (master,) = (p for p in bus.processes("esb api") if _is_master(p))
        children = {p.pid for p in master.children()}
        master.send_signal(1)  # SIGHUP: gunicorn replaces its workers and keeps the socket
        scene.wait(
            lambda: master.children() and not children & {p.pid for p in master.children()}, 60, "new API processes"
        )
        time.sleep(1.0)
        scene.healed()
    scene.settle(within=LEASE + SWEEP + 5)
    statuses = {each.status for sent in load.sent for each in sent.tries}
    scene.require(not any(s is not None and s >= 500 for s in statuses), "I7 API", f"the API answered {statuses}")
    before.compare(scene)


def at_work(scene: Scene, pool: int, role: str) -> list[psutil.Process]:
    """Worker processes that have registered: one that is killed while it starts shows nothing."""
    rows = scene.sql("select pid from worker where pool = %s and dead_at is null and beat_until > now()", pool)
    pids = {pid for (pid,) in rows}
    return [process for process in scene.bus.processes(role) if process.pid in pids]


def _is_master(process: psutil.Process) -> bool:
    parent = process.parent()
    return parent is not None and " up" in " ".join(parent.cmdline())


def _replaced(scene: Scene, role: str, gone: psutil.Process) -> None:
    count = 2 if role != "scheduler" else 1

    def back() -> bool:
        pids = [p.pid for p in scene.bus.processes(role)]
        return gone.pid not in pids and len(pids) == count

    scene.wait(back, 30, f"another {role}")
    if role.startswith("worker"):
        pool = 1 if role.endswith("routing") else 2
        alive = "select count(*) from worker where pool = %s and dead_at is null and beat_until > now()"
        scene.wait(lambda: scene.sql(alive, pool)[0][0] >= count, 30, f"the registration of another {role}")
