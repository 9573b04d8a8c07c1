"""The drill on a backlog: a million deliveries due, over a hundred destinations, one of them dead."""

from __future__ import annotations

import time
from collections import Counter
from typing import NamedTuple

import psycopg2

from tests.drills.catalogue import drill
from tests.drills.footprint import Footprint
from tests.drills.scene import Scene
from tests.drills.workload import Plan

ROWS, LANES = 1_000_000, 100
#: The 99th percentile of a claim, milliseconds, on a machine with nothing else to do.
CLAIM_P99 = 20.0
#: A claim as an idle worker makes it, taken back at once.
CLAIM = "select count(*) from esb_claim(2::smallint, %s, 1::smallint, 20, 2, '{}', '{}', %s, '60 s')"


class Claims(NamedTuple):
    """Milliseconds."""

    median: float
    p99: float

    def __str__(self) -> str:
        return f"{self.median:.1f} ms, p99 {self.p99:.1f}"


@drill(
    15,
    "backlog",
    "a million due deliveries do not slow a claim, nor grow the bus, nor starve a destination; new messages still arrive",
)
def backlog(scene: Scene) -> None:
    scene.start_bus()
    scene.warm_up()
    names = _lanes(scene)
    few = _claims_in_peace(scene)
    before = Footprint.of(scene)
    hits = scene.receivers["a"].hits
    start = len(hits)
    many = _claims_in_peace(scene, 50_000 if scene.quick else ROWS)
    with scene.load(Plan(per_second=3)) as load:  # less than the share of one lane in a hundred
        time.sleep(20)
        more = _claims(scene)
    span = len(hits) - start
    during = Footprint.of(scene)
    bells = max(scene.redis().llen(pool) for pool in ("routing", "delivery"))
    shares = Counter(hit.path for hit in list(hits)[start:] if hit.path.startswith("/lane-"))
    # What is left would take its time; it is real work, but nothing more is learnt from it.
    _drop(scene)
    scene.healed()
    scene.settle(within=15)
    # Those of the load wait in a lane of their own: a lane's turn comes round, however long the others are.
    lag = _longest_wait(scene, {s.n for s in load.sent})
    notes = f"claims: {few} with a thousand due, {many} with a million, {more} under load; {span} delivered meanwhile"
    scene.result.notes.append(notes)
    # A machine that others share makes any tail; the middle shows what the backlog does.
    scene.require(many.median <= 1.5 * few.median + 0.5, "I7 API", notes)
    scene.require(many.p99 <= max(CLAIM_P99, 3 * few.p99), "I7 API", notes)
    _require_shares(scene, shares, lag, len(names) - 1)
    _require_bounds(scene, before, during, bells)


def _lanes(scene: Scene) -> list[str]:
    """Destinations; the last one is dead: nothing listens there."""
    names = [f"lane-{i}" for i in range(LANES)]
    url = scene.receivers["a"].url
    for name in names:
        endpoint = "http://127.0.0.1:9" if name == names[-1] else f"{url}/{name}"
        scene.bus.create("/services", {"name": name, "version": "1.0.0", "endpoint": endpoint})
    return names


def _require_shares(scene: Scene, shares: Counter[str], lag: float, living: int) -> None:
    least, most = min(shares.values(), default=0), max(shares.values(), default=0)
    scene.result.notes.append(f"each lane {least}–{most}; longest wait of a new message {lag:.1f} s")
    scene.require(len(shares) == living, "I8 isolation", f"{len(shares)} of {living} destinations got anything")
    scene.require(not shares or most <= 3 * least + 20, "I8 isolation", f"shares from {least} to {most}")
    scene.require(lag <= 10, "I8 isolation", f"a new message waited {lag:.1f} s behind the backlog")


def _require_bounds(scene: Scene, before: Footprint, during: Footprint, bells: int) -> None:
    scene.require(bells <= 4, "I6 bounded", f"{bells} bells in a queue")
    memory = f"memory {before.megabytes} → {during.megabytes} MB"
    scene.require(during.megabytes <= before.megabytes * 1.1 + 100, "I6 bounded", memory)


def _claims_in_peace(scene: Scene, rows: int = 1000) -> Claims:
    """What claims take with so many due, while no worker takes them."""
    pool = scene.bus.processes("esb worker delivery")
    for process in pool:
        process.suspend()
    _fill(scene, [f"lane-{i}" for i in range(LANES)], rows)
    took = _claims(scene)
    for process in pool:
        process.resume()
    return took


def _fill(scene: Scene, names: list[str], rows: int) -> None:
    """Deliveries of one message, as if routed long ago: they have no number of the drill."""
    scene.sql(
        "insert into message (id, source, type, correlation_id, payload) select esb_uuid_at(now()), 'backlog', 'backlog', 'backlog', '{\"n\": -1}'"
    )
    for name in names:
        scene.sql("select esb_lane(2::smallint, %s)", name)
    scene.sql(
        "insert into job (id, pool, lane_id, state, run_at, message_id) select uuidv7(), 2, l.id, 'r', now() - interval '1 hour',"
        " (select id from message where type = 'backlog' limit 1) from lane l, generate_series(1, %s) where l.pool = 2 and l.name like 'lane-%%'",
        rows // LANES,
    )
    # A backlog that grows by itself has this behind it; one that is there at once leaves it to its first claims.
    scene.sql("vacuum (analyze) job")


def _drop(scene: Scene) -> None:
    """Take the rest of the backlog away, and what it left in history."""
    while scene.sql("select 1 from job j join lane l on l.id = j.lane_id where l.name like 'lane-%' limit 1"):
        scene.sql("delete from job j using lane l where l.id = j.lane_id and l.name like 'lane-%' and j.state <> 'f'")
        time.sleep(0.5)


def _claims(scene: Scene, times: int = 200) -> Claims:
    """How long claims take, each rolled back at once."""
    connection = psycopg2.connect(scene.database_url)
    took = []
    try:
        with connection.cursor() as cursor:
            cursor.execute(
                "insert into worker (pool, host, pid, version, beat_until) values (2, 'drill', 0, '0', now() + interval '1 min') returning id"
            )
            (worker,) = cursor.fetchone() or (0,)
            connection.commit()
            for number in range(times):
                began = time.monotonic()
                cursor.execute(CLAIM, (worker, number % LANES))
                took.append(time.monotonic() - began)
                connection.rollback()
            cursor.execute("update worker set dead_at = now() where id = %s", (worker,))
            connection.commit()
    finally:
        connection.close()
    took.sort()
    return Claims(took[times // 2] * 1000, took[int(times * 0.99) - 1] * 1000)


def _longest_wait(scene: Scene, numbers: set[int]) -> float:
    first: dict[int, float] = {}
    for arrival in scene.journal.read():
        if arrival.n in numbers:
            first.setdefault(arrival.n, arrival.at)
    return max(
        (first[s.n] - s.ended for s in scene.sent if s.n in first and s.key is None and s.n in numbers), default=0.0
    )
