"""Health checks on a real database of real servers: probe, judge, record."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from esb_workers.app import make_celery
from esb_workers.errors import Conflict, NotFound
from esb_workers.health import checks, tasks
from esb_workers.runtime.ringer import Ringer
from esb_workers.settings import Settings
from esb_workers.store.engine import Database
from esb_workers.store.ids import new_id
from esb_workers.transport.address import AddressGuard
from esb_workers.transport.http import HttpCaller
from tests.support.receiver import Receiver, Reply

Eventually = Callable[..., None]
SETTINGS = Settings.load({}, None, broker_url="redis://127.0.0.1:1/0", lease_seconds=3.0, sweep_seconds=0.2)


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as receiver:
        yield receiver


@pytest.fixture
def caller() -> Iterator[HttpCaller]:
    caller = HttpCaller(AddressGuard.of(SETTINGS))
    yield caller
    caller.close()


class World:
    """A database with services in it, and a health engine over it."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.engine: tasks.HealthEngine | None = None

    def start(self) -> None:
        self.engine = tasks.make_engine(SETTINGS, self.database, Ringer(make_celery(SETTINGS)), slots=4)
        self.engine.start()

    def stop(self) -> None:
        if self.engine:
            self.engine.stop(5)
            self.engine.ringer.close()

    def sql(self, statement: str, *values: Any) -> list[tuple[Any, ...]]:
        with self.database.cursor() as cursor:
            cursor.execute(statement, values)
            return list(cursor.fetchall()) if cursor.description else []

    def service(self, *, status: str = "active", **health_check: Any) -> str:
        """A service registered behind the pool's back: the net must find it."""
        id_ = new_id()
        self.sql(
            "insert into service (id, name, version, endpoint, status, health_check) values (%s, %s, '1.0.0', 'http://127.0.0.1', %s, %s)",
            id_, f"s-{id_}", status, json.dumps(health_check) if health_check else None,
        )  # fmt: skip
        self.sql("insert into service_state (service_id) values (%s)", id_)
        return id_

    def health(self, service: str) -> str:
        ((health,),) = self.sql("select health from service_state where service_id = %s", service)
        return str(health)

    def history(self, service: str) -> list[tuple[bool, str, bool]]:
        return self.sql("select ok, health, changed from health_check where service_id = %s order by id", service)


@pytest.fixture
def world(database: Database) -> Iterator[World]:
    world = World(database)
    yield world
    world.stop()


def test_a_service_is_probed_on_its_interval_and_becomes_healthy(
    world: World, receiver: Receiver, eventually: Eventually
) -> None:
    service = world.service(url=receiver.url + "/health", interval=200)
    world.start()
    eventually(lambda: len(receiver.hits) >= 5)
    gaps = [later.at - earlier.at for earlier, later in zip(receiver.hits[1:], receiver.hits[2:], strict=False)]
    assert all(0.15 < gap < 0.6 for gap in gaps)
    assert world.health(service) == "healthy"
    assert world.history(service)[:3] == [(True, "unknown", False), (True, "healthy", True), (True, "healthy", False)]
    ((last,),) = world.sql("select last_check from service_state where service_id = %s", service)
    assert (last["ok"], last["statusCode"], last["error"]) == (True, 200, None)
    assert {(hit.method, hit.path) for hit in receiver.hits} == {("GET", "/health")}


def test_a_failing_service_is_degraded_then_unhealthy_and_comes_back(
    world: World, receiver: Receiver, eventually: Eventually
) -> None:
    service = world.service(url=receiver.url, interval=60)
    world.start()
    eventually(lambda: world.health(service) == "healthy")
    revision = world.sql("select n from revision where topic = 'services'")
    receiver.answer = lambda hit: Reply(500)
    eventually(lambda: world.health(service) == "unhealthy")
    receiver.answer = lambda hit: Reply()
    eventually(lambda: world.health(service) == "healthy")
    states = [health for _, health, changed in world.history(service) if changed]
    assert states == ["healthy", "degraded", "unhealthy", "healthy"]
    assert world.sql("select n from revision where topic = 'services'") > revision


def test_a_server_that_is_gone_or_too_slow_is_a_failed_check_that_says_why(
    world: World, receiver: Receiver, eventually: Eventually
) -> None:
    receiver.answer = lambda hit: Reply(delay=0.4)
    slow = world.service(url=receiver.url, interval=60_000, timeout=100)
    gone = world.service(url="http://127.0.0.1:1/", interval=60_000)
    refused = world.service(url="http://169.254.169.254/", interval=60_000)
    world.start()
    found = {}

    def all_there() -> bool:
        found.update(dict(world.sql("select service_id, error from health_check")))
        return len(found) == 3

    eventually(all_there)
    assert found[slow].startswith("Timeout")
    assert found[gone].startswith("ServiceUnavailable")
    assert found[refused].startswith("AddressRefused")
    assert {world.health(s) for s in (slow, gone, refused)} == {"degraded"}


def test_the_expected_status_decides(world: World, receiver: Receiver, eventually: Eventually) -> None:
    receiver.answer = lambda hit: Reply(401)
    wanted = world.service(url=receiver.url, interval=50, expectedStatus="2xx,401")
    other = world.service(url=receiver.url, interval=50, expectedStatus="204")
    world.start()
    eventually(lambda: (world.health(wanted), world.health(other)) == ("healthy", "unhealthy"))


def test_a_tcp_check_only_connects(world: World, receiver: Receiver, eventually: Eventually) -> None:
    up = world.service(type="tcp", url=f"tcp://127.0.0.1:{receiver.port}", interval=50)
    down = world.service(type="tcp", url="tcp://127.0.0.1:1", interval=50)
    world.start()
    eventually(lambda: (world.health(up), world.health(down)) == ("healthy", "unhealthy"))
    assert receiver.hits == []


def test_without_a_health_check_nobody_looks(world: World, receiver: Receiver, eventually: Eventually) -> None:
    unwatched = world.service()
    inactive = world.service(url=receiver.url, status="inactive", interval=50)
    world.service(url=receiver.url + "/seen", interval=50)
    world.start()
    eventually(lambda: len(receiver.hits) >= 3)
    assert {hit.path for hit in receiver.hits} == {"/seen"}
    assert (world.health(unwatched), world.health(inactive)) == ("unknown", "unknown")


def test_a_deregistered_service_is_looked_at_no_more(world: World, receiver: Receiver, eventually: Eventually) -> None:
    service = world.service(url=receiver.url, interval=50)
    world.start()
    eventually(lambda: receiver.hits)
    world.sql("delete from service where id = %s", service)
    eventually(lambda: world.sql("select count(*) from job where pool = 4") == [(0,)])


def test_a_shortened_interval_counts_from_the_next_check_on(
    world: World, receiver: Receiver, eventually: Eventually
) -> None:
    receiver.answer = lambda hit: Reply(delay=0.3)
    service = world.service(url=receiver.url, interval=60_000)
    world.start()
    eventually(lambda: receiver.hits)
    changed = {"url": receiver.url, "interval": 50}
    world.sql("update service set health_check = %s where id = %s", json.dumps(changed), service)
    eventually(lambda: len(receiver.hits) >= 3)


def test_heartbeats_keep_a_service_healthy_and_silence_does_not(world: World, eventually: Eventually) -> None:
    service = world.service(type="heartbeat", ttl=400)
    world.start()
    assert checks.heartbeat(world.database, service).state.health == "healthy"
    until = time.monotonic() + 1.0
    while time.monotonic() < until:
        checks.heartbeat(world.database, service)
        assert world.health(service) == "healthy"
        time.sleep(0.1)  # a beat, well within the ttl
    eventually(lambda: world.health(service) == "unhealthy")
    assert world.history(service)[-1] == (False, "unhealthy", True)
    assert checks.heartbeat(world.database, service).state.health == "healthy"


def test_a_check_by_hand_is_recorded_like_any_other(world: World, receiver: Receiver, caller: HttpCaller) -> None:
    service = world.service(url=receiver.url, healthyThreshold=1)
    recorded = checks.check_now(world.database, caller, service)
    assert (recorded.finding.ok, recorded.state.health, recorded.changed) == (True, "healthy", True)
    assert world.history(service) == [(True, "healthy", True)]


def test_what_cannot_be_checked_is_refused(world: World, caller: HttpCaller) -> None:
    with pytest.raises(NotFound):
        checks.check_now(world.database, caller, new_id())
    with pytest.raises(Conflict):
        checks.check_now(world.database, caller, world.service())
    with pytest.raises(Conflict):
        checks.check_now(world.database, caller, world.service(type="heartbeat", ttl=1000))
    with pytest.raises(Conflict):
        checks.heartbeat(world.database, world.service(url="http://127.0.0.1"))


def test_a_job_given_up_after_lost_leases_is_taken_up_again(
    world: World, receiver: Receiver, eventually: Eventually
) -> None:
    service = world.service(url=receiver.url, interval=60_000)
    world.sql(
        "insert into job (id, pool, lane_id, state, losses) values (%s, 4, esb_lane(4::smallint, 'x'), 'b', 5)", service
    )
    world.start()
    eventually(lambda: receiver.hits)
