"""Crash points: processes that kill themselves at a labelled place, as `kill -9` at exactly that moment would."""

from __future__ import annotations

import time

from esb_workers import drill as crash
from tests.drills.catalogue import drill
from tests.drills.scene import LEASE, SWEEP, Scene
from tests.drills.workload import Plan


@drill(
    20,
    "crash-points",
    "what a process leaves behind that dies at each of the crash points is picked up, once in effect",
    quick=True,
)
def crash_points(scene: Scene) -> None:
    bus = scene.start_bus(lease_seconds=2, sweep_seconds=0.5)
    labels = (crash.AFTER_CALL_BEFORE_RECORD, crash.AFTER_CLAIM) if scene.quick else crash.LABELS
    for label in labels:
        bus.stop()
        bus.start(crash_at=label)
        pids = {p.pid for p in bus.processes("esb worker")} | {p.pid for p in bus.processes("esb api")}
        with scene.load(Plan(senders=2, per_second=20)):
            time.sleep(2.0)
            died = pids - {p.pid for p in bus.processes("esb worker")} - {p.pid for p in bus.processes("esb api")}
            scene.require(bool(died), "drill", f"nothing died at {label}")
            time.sleep(1.0)
            scene.healed()
        scene.settle(within=LEASE + SWEEP + 8)
