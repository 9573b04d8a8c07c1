"""Declared limits of services hold for every kind of call, over all workers."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from esb_workers.app import make_celery
from esb_workers.orchestration import tasks as orchestration
from esb_workers.registry.instances import Directory
from esb_workers.registry.limits import Limits
from esb_workers.registry.secrets import Vault
from esb_workers.runtime.ringer import Ringer
from esb_workers.settings import Settings
from esb_workers.store import jobs, lanes, permits, revision, workers
from esb_workers.store.engine import Database
from esb_workers.store.ids import new_id
from tests.support.api import ApiClient
from tests.support.engines import Engines
from tests.support.receiver import Hit, Receiver, Reply

Eventually = Callable[..., None]


def limited(database: Database, **limits: Any) -> int:
    with database.cursor() as cursor:
        lane = lanes.lane_id(cursor, 2, "narrow")
        cursor.execute(
            "update lane set gate_until = '-infinity', hard = true, max_concurrency = %s, rate = %s, burst = 1 where id = %s",
            (limits.get("max_concurrency"), limits.get("rate"), lane),
        )
    return lane


def test_permits_and_deliveries_share_the_places_of_a_service(database: Database) -> None:
    lane = limited(database, max_concurrency=2)
    with database.cursor() as cursor:
        for _ in range(3):
            cursor.execute(
                "insert into job (id, pool, lane_id, message_id) values (%s, 2, %s, %s)", (new_id(), lane, new_id())
            )
        me = workers.register(cursor, 2, "here", 1, "0", 60)
        permit = permits.take(database, "narrow", 60)
        (claim,) = jobs.claim(cursor, 2, me, 5, 5)
        refused = permits.take(database, "narrow", 60)
        assert refused.id is None
        assert refused.retry_ms
        jobs.done(cursor, me, [{"id": claim.id, "attempt": claim.attempt, "o": "ok", "detail": {}}])
        assert permit.id
        permits.give_back(database, permit.id)
        assert len(jobs.claim(cursor, 2, me, 5, 5)) == 2


def test_the_place_of_a_caller_that_died_is_free_again_when_its_time_has_run_out(database: Database) -> None:
    limited(database, max_concurrency=1)
    assert permits.take(database, "narrow", -1).id
    assert permits.take(database, "narrow", 60).id
    assert permits.take(database, "narrow", 60).id is None


def test_a_place_is_kept_for_as_long_as_a_call_of_the_service_may_take(
    api: ApiClient, settings: Settings, database: Database
) -> None:
    delivery = {"timeout": 300_000, "maxConcurrency": 1}
    made = api.post("/services", {"name": "slow", "version": "1.0.0", "endpoint": "http://slow", "delivery": delivery})
    assert made.status_code == 201, made.json
    directory = Directory(Vault(settings.secret_keys))
    with database.cursor() as cursor:
        directory.refresh(database, revision.current(cursor))
    with Limits(database, directory).place("slow", None) as refusal, database.cursor() as cursor:
        assert refusal is None
        cursor.execute("select extract(epoch from until - now())::float8 from permit")
        assert 300 < cursor.fetchone()[0] <= 310  # type: ignore[index]
        assert permits.take(database, "slow", 1).id is None, "though no delivery has gone to it yet"


def test_permits_keep_a_rate(database: Database) -> None:
    limited(database, rate=2.0)
    first, second = (permits.take(database, "narrow", 60) for _ in range(2))
    assert first.id == 0
    assert second.id is None
    assert 300 < (second.retry_ms or 0) <= 500


def test_racing_callers_never_exceed_a_limit(database: Database) -> None:
    limited(database, max_concurrency=3)
    lock, held, peak = threading.Lock(), 0, 0

    def work(_: int) -> None:
        nonlocal held, peak
        for _ in range(25):
            permit = permits.take(database, "narrow", 60)
            if permit.id:
                with lock:
                    held += 1
                    peak = max(peak, held)
                with lock:
                    held -= 1
                permits.give_back(database, permit.id)

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(work, range(6)))
    assert 0 < peak <= 3


class Gauge:
    """How many calls a receiver has under way at once."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.now = self.peak = 0

    def answer(self, hit: Hit) -> Reply:
        with self._lock:
            self.now += 1
            self.peak = max(self.peak, self.now)
        time.sleep(0.05)  # the call itself
        with self._lock:
            self.now -= 1
        return Reply()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as receiver:
        yield receiver


def test_deliveries_that_choose_late_keep_to_a_services_limit(
    api: ApiClient, settings: Settings, database: Database, receiver: Receiver, eventually: Eventually
) -> None:
    gauge = Gauge()
    receiver.answer = gauge.answer
    service = {"name": "narrow", "version": "1.0.0", "endpoint": receiver.url, "delivery": {"maxConcurrency": 2}}
    assert api.post("/services", service).status_code == 201
    route = {"name": "r", "pattern": "#", "destinations": ["narrow", "other"], "strategy": "first_available"}
    assert api.post("/routing/routes", route).status_code == 201
    other = {"name": "other", "version": "1.0.0", "endpoint": receiver.url + "/other"}
    assert api.post("/services", other).status_code == 201
    messages = [{"source": "shop", "messageType": "a", "payload": n} for n in range(12)]
    assert api.post("/routing/send/batch", {"messages": messages}).status_code == 202
    with Engines(settings, database):
        eventually(lambda: len(receiver.hits) == 12 and not gauge.now, seconds=20)
    assert gauge.peak <= 2
    assert {hit.path for hit in receiver.hits} == {"/"}, "a service that is busy is not held"
    shown = api.get("/routing/logs").json["items"]
    assert {len(message["deliveries"][0]["attempts"]) for message in shown} == {1}, "a refusal costs no attempt"


def test_calls_that_enrich_keep_to_a_services_limit(
    api: ApiClient, settings: Settings, database: Database, receiver: Receiver, eventually: Eventually
) -> None:
    gauge = Gauge()
    receiver.answer = lambda hit: gauge.answer(hit) if hit.path == "/narrow" else Reply()
    for name, limits in (("narrow", {"maxConcurrency": 2}), ("desk", {})):
        service = {"name": name, "version": "1.0.0", "endpoint": f"{receiver.url}/{name}", "delivery": limits}
        assert api.post("/services", service).status_code == 201
    ask = {"type": "enrich", "service": "narrow", "resultPath": "known"}
    route = {"name": "r", "pattern": "#", "destinations": ["desk"], "transformation": ask}
    assert api.post("/routing/routes", route).status_code == 201
    messages = [{"source": "shop", "messageType": "a", "payload": {"n": n}} for n in range(12)]
    assert api.post("/routing/send/batch", {"messages": messages}).status_code == 202
    with Engines(settings, database):
        eventually(lambda: sum(hit.path == "/desk" for hit in receiver.hits) == 12, seconds=20)
    assert gauge.peak <= 2
    assert len(receiver.hits) == 24, "a refusal costs no call"


def test_the_steps_of_runs_keep_to_a_services_limit(
    api: ApiClient, settings: Settings, database: Database, receiver: Receiver, eventually: Eventually
) -> None:
    gauge = Gauge()
    receiver.answer = gauge.answer
    service = {"name": "narrow", "version": "1.0.0", "endpoint": receiver.url, "delivery": {"maxConcurrency": 2}}
    assert api.post("/services", service).status_code == 201
    call = {"id": "c", "type": "service_call", "config": {"serviceName": "narrow", "method": "m"}}
    each = {"items": "${[1,2,3,4,5,6,7,8]}", "maxConcurrency": 8, "steps": [call]}
    definition = {"steps": [{"id": "f", "type": "foreach", "config": each}]}
    made = api.post("/orchestration/workflows", {"name": "w", "version": "1.0.0", "definition": definition})
    assert made.status_code == 201, made.json
    run = api.post("/orchestration/execute", {"workflowName": "w"}).json["executionId"]
    quick = settings.model_copy(update={"sweep_seconds": 0.2, "lease_seconds": 5.0})
    ringer = Ringer(make_celery(quick))
    engine = orchestration.make_engine(quick, database, ringer, 8)
    engine.start()
    try:
        eventually(lambda: api.get(f"/orchestration/executions/{run}").json["status"] == "completed", seconds=20)
    finally:
        engine.stop(5)
        ringer.close()
    assert len(receiver.hits) == 8
    assert gauge.peak <= 2
