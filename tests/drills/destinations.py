"""Drills on destinations that are slow or hostile: bounded in time and memory, and the healthy do not notice."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

from tests.drills.catalogue import drill
from tests.drills.footprint import Footprint
from tests.drills.history import OK
from tests.drills.scene import LEASE, SWEEP, Scene
from tests.drills.workload import Plan, Workload
from tests.support.misbehaving import Misbehaving, number_in

HEALTHY = ("a", "b", "c", "d")
SLOW = ("slowloris", "silent", "reset", "late")
HOSTILE = ("flood", "bomb", "headers", "redirect")
#: Of a call to a slow or hostile destination, milliseconds; and how far past it an attempt may end.
TIMEOUT, MARGIN = 2000, 1000


@drill(
    12,
    "slow-destinations",
    "four slow or dead destinations among eight: calls end at their deadline, circuits open, the healthy keep their pace",
)
def slow_destinations(scene: Scene) -> None:
    scene.start_bus(receivers=HEALTHY)
    scene.warm_up()
    bad = [_misbehaving(scene, way) for way in SLOW]
    span = 4.0 if scene.quick else 10.0
    with scene.load(Plan(per_second=40, kinds=HEALTHY, keyed=False)) as calm:
        time.sleep(span)
    time.sleep(1.0)
    baseline = _share_in_time(scene, calm)
    before = Footprint.of(scene)
    with scene.load(Plan(per_second=40, kinds=HEALTHY, keyed=False)) as healthy:
        with scene.load(Plan(senders=2, per_second=20, kinds=SLOW, keyed=False)):
            time.sleep(span)
    time.sleep(1.0)
    beside = _share_in_time(scene, healthy)
    scene.result.notes.append(f"healthy arrivals within a second: {baseline:.0%} alone, {beside:.0%} beside the slow")
    scene.require(
        beside >= 0.8 * baseline,
        "I8 isolation",
        f"{beside:.0%} of the healthy arrived within a second, {baseline:.0%} without the slow",
    )
    # A reset is told by the connection, not by the clock.
    opened = {
        name
        for (name,) in scene.sql(
            "select s.name from service s join service_state t on t.service_id = s.id where t.circuit_opens > 0"
        )
    }
    scene.require(
        set(SLOW) <= opened, "I8 isolation", f"of the slow destinations only {sorted(opened)} had their circuit opened"
    )
    _ended_in_time(scene)
    for server in bad:
        server.behave()
    scene.healed()
    scene.settle(within=LEASE + SWEEP + 40)  # their circuits were open for 10 s, some for another 20
    before.compare(scene)


@drill(
    13,
    "hostile-destinations",
    "answers of 10 GB, gzip bombs, endless headers, redirects inside, names that change their address: nothing of it gets in",
)
def hostile_destinations(scene: Scene) -> None:
    shims = str(Path(__file__).parent / "rebinding")
    os.environ["PYTHONPATH"] = shims
    scene.stack.callback(os.environ.pop, "PYTHONPATH", None)
    trap = scene.stack.enter_context(Misbehaving("silent", host="127.0.0.3"))
    scene.start_bus(deny_cidrs="127.0.0.3/32")
    scene.warm_up()
    before = Footprint.of(scene)
    bad = [_misbehaving(scene, way, location=f"{trap.url}/admin") for way in HOSTILE]
    # A name of two addresses in turn: an allowed one, where the port is closed, and the forbidden one.
    scene.register(
        "rebind",
        f"http://rebind.drill.test:{trap.port}",
        policy={"maxRetries": 3, "backoffStrategy": "fixed", "initialDelay": 100},
        timeout=TIMEOUT,
    )
    peak = _Peak(scene)
    with peak, scene.load(Plan(senders=2, per_second=10, kinds=(*HOSTILE, "rebind", "a"), keyed=False)) as load:
        time.sleep(4 if scene.quick else 10)
        scene.wait(lambda: all(server.requests for server in bad), 30, "a request at each")
    for server in bad:
        server.behave()
    scene.healed()
    # What becomes of such an answer is the bus's choice: a 200 may count as delivered, a redirect is dead.
    ends = dict(
        scene.sql(
            "select m.external_id, d.status from delivery d join message m on m.id = d.message_id where m.external_id like 'drill-%'"
        )
    )
    scene.expected = type(scene.expected)(endings=_Whatever(scene, {s.n: s for s in load.sent if s.n % 6 != 5}))
    scene.settle(within=LEASE + SWEEP + 40)
    scene.require(trap.requests == 0, "I8 isolation", f"{trap.requests} requests reached the forbidden address")
    longest = scene.sql("select coalesce(max(length(last->>'responseBody')), 0) from delivery")[0][0]
    scene.require(longest <= 65536, "I6 bounded", f"a body of {longest} characters was kept")
    scene.require(
        peak.megabytes - before.megabytes < 200, "I6 bounded", f"memory {before.megabytes} → {peak.megabytes} MB"
    )
    scene.result.notes.append(
        f"memory {before.megabytes} → {peak.megabytes} MB at most; {len(ends)} had ended before it was over"
    )
    _ended_in_time(scene)


class _Whatever(dict[int, str]):
    """Each of these may end as delivered or dead: whichever the database says, asked when it has ended."""

    def __init__(self, scene: Scene, numbers: dict[int, object]) -> None:
        super().__init__()
        self._scene, self._numbers = scene, numbers

    def get(self, n: int, default: object = None) -> str:  # type: ignore[override]
        if n not in self._numbers:
            return str(default)
        rows = self._scene.sql(
            "select d.status from delivery d join message m on m.id = d.message_id where m.external_id = %s",
            f"drill-{n}",
        )
        return str(rows[0][0]) if rows and rows[0][0] in ("delivered", "dead") else "delivered or dead"


def _misbehaving(scene: Scene, way: str, location: str = "") -> Misbehaving:
    server = scene.stack.enter_context(Misbehaving(way, location=location))

    def note(headers: dict[str, str], body: bytes, status: int) -> None:
        if "idempotency-key" in headers:
            scene.journal.write(way, number_in(body), headers["idempotency-key"], status)

    server.note = note
    scene.register(way, server.url, timeout=TIMEOUT)
    return server


def _share_in_time(scene: Scene, load: Workload, seconds: float = 1.0) -> float:
    """The share of what was accepted that arrived within `seconds`."""
    first: dict[int, float] = {}
    for arrival in scene.journal.read():
        first.setdefault(arrival.n, arrival.at)
    accepted = [s for s in load.sent if s.outcome == OK]
    return sum(s.n in first and first[s.n] - s.ended <= seconds for s in accepted) / max(1, len(accepted))


def _ended_in_time(scene: Scene) -> None:
    longest = scene.sql(
        "select coalesce(max(ms), 0) from (select (last->>'durationMs')::int ms from delivery union all select (detail->>'durationMs')::int from attempt) t"
    )[0][0]
    scene.result.notes.append(f"longest attempt {longest} ms of {TIMEOUT}")
    scene.require(longest <= TIMEOUT + MARGIN, "I7 API", f"an attempt took {longest} ms, may take {TIMEOUT}")


class _Peak:
    """The most memory the bus held during the block."""

    def __init__(self, scene: Scene) -> None:
        self.megabytes = 0
        self._scene = scene
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(10)

    def _watch(self) -> None:
        while not self._stop.wait(0.5):
            self.megabytes = max(self.megabytes, Footprint.of(self._scene).megabytes)
