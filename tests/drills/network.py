"""Drills on the links of one worker: cut, silent in one direction or both, late, losing packets.

The worker that is cut off runs beside the bus and reaches database, broker and destination through proxies. So no
privileges are needed, and what is lost is only what that worker holds.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from urllib.parse import urlsplit

from tests.drills.catalogue import drill
from tests.drills.scene import LEASE, SWEEP, Scene
from tests.drills.workload import Plan
from tests.support.proxy import DOWN, UP, Proxy
from tests.support.receiver import Reply
from tests.support.servers import port_of, through

#: A connection that nothing comes through any more is given up within this, seconds.
HALF_OPEN = 60.0


@drill(
    9,
    "partition",
    "a worker cut off from database, broker or destination, in one direction or both, or by 200 ms and lost packets: others do its work",
)
def partition(scene: Scene) -> None:
    postgres, valkey = scene.tcp_servers()
    scene.start_bus("--workers", "delivery=2", database_url=postgres.url, broker_url=valkey.url)
    database, broker = (
        scene.stack.enter_context(Proxy("127.0.0.1", port_of(url))) for url in (postgres.url, valkey.url)
    )
    destination = _proxied_destination(scene)
    scene.spawn(
        "worker",
        "delivery",
        database_url=through(postgres.url, database.port),
        broker_url=through(valkey.url, broker.port),
    )
    scene.wait(lambda: _alive(scene) == 3, 30, "the far worker")
    scene.warm_up()
    scene.receivers["a"].answer = lambda hit: Reply(delay=0.1)
    span = 4.0 if scene.quick else 2.5 * LEASE
    for what, fault in _faults(database, broker, destination):
        _one(scene, what, fault, (database, broker, destination), span)
    scene.wait(lambda: _alive(scene) == 3, HALF_OPEN, "the far worker's return")


def _faults(database: Proxy, broker: Proxy, destination: Proxy) -> list[tuple[str, Callable[[], None]]]:
    def worse(link: Proxy) -> None:
        link.latency, link.stalls = 0.2, 0.05

    return [
        ("database silent", database.blackhole),
        ("database: requests lost", lambda: database.blackhole(UP)),
        ("database: answers lost", lambda: database.blackhole(DOWN)),
        ("database cut", database.cut),
        ("database late and lossy", lambda: worse(database)),
        ("broker silent", broker.blackhole),
        ("broker cut", broker.cut),
        ("destination cut", destination.cut),
        ("destination: answers lost", lambda: destination.blackhole(DOWN)),
        ("destination late and lossy", lambda: worse(destination)),
    ]


def _one(scene: Scene, what: str, fault: Callable[[], None], links: tuple[Proxy, ...], span: float) -> None:
    before = scene.result.recovery
    scene.result.recovery = None
    with scene.load(Plan(per_second=30)):
        time.sleep(0.7)
        fault()
        # Silence towards a destination opens its circuit for ten seconds, then twenty: kept short, for the drill's sake.
        time.sleep(3.0 if what.startswith("destination") else span)
        for link in links:
            link.heal()
        scene.healed()
        time.sleep(0.5)
    # A destination that was away waits for its circuit: ten seconds, or twenty if the first probe came too early.
    scene.settle(within=35 if what.startswith("destination") else LEASE + SWEEP + 5)
    scene.result.notes.append(f"{what}: recovered in {scene.result.recovery:.1f} s")
    scene.result.recovery = max(scene.result.recovery or 0.0, before or 0.0)


def _proxied_destination(scene: Scene) -> Proxy:
    """Put a proxy before receiver `a`."""
    port = urlsplit(scene.receivers["a"].url).port
    assert port is not None
    proxy = scene.stack.enter_context(Proxy("127.0.0.1", port))
    service = scene.bus.get("/services?name=a").body["items"][0]["id"]
    answer = scene.bus.call(
        "PATCH", f"/services/{service}", {"endpoint": f"http://127.0.0.1:{proxy.port}", "delivery": {"timeout": 2000}}
    )
    assert answer.status == 200, answer
    return proxy


def _alive(scene: Scene) -> int:
    return int(scene.sql("select count(*) from worker where pool = 2 and dead_at is null and beat_until > now()")[0][0])
