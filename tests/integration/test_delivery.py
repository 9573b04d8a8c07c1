"""Deliveries on a real database to real receivers: prepare, call, record."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import standardwebhooks
from cryptography.fernet import Fernet

from esb_workers.app import make_celery
from esb_workers.delivery import tasks
from esb_workers.registry.secrets import Vault
from esb_workers.runtime.ringer import Ringer
from esb_workers.runtime.slots import SlotEngine
from esb_workers.settings import Settings
from esb_workers.store import circuits, deliveries, jobs, lanes, workers
from esb_workers.store.engine import Database
from esb_workers.store.ids import new_id
from tests.support.receiver import Hit, Receiver, Reply

KEY = Fernet.generate_key().decode()
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
DELIVERY = 2


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as receiver:
        yield receiver


class World:
    """A database with services, routes and messages in it, and a delivery engine over it."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.settings = Settings.load(
            {}, None, broker_url="redis://127.0.0.1:1/0", secret_keys=(KEY,), lease_seconds=3.0, sweep_seconds=0.3
        )
        self.engine: SlotEngine | None = None

    def start(self) -> SlotEngine:
        ringer = Ringer(make_celery(self.settings))
        self.engine = tasks.make_engine(self.settings, self.database, ringer, slots=8)
        self.engine.start()
        return self.engine

    def stop(self) -> None:
        if self.engine:
            self.engine.stop(5)
            self.engine.ringer.close()

    def sql(self, statement: str, *values: Any) -> list[tuple[Any, ...]]:
        with self.database.cursor() as cursor:
            cursor.execute(statement, values)
            return list(cursor.fetchall()) if cursor.description else []

    def service(
        self, name: str, endpoint: str, version: str = "1.0.0", *, status: str = "active", **delivery: Any
    ) -> str:
        id_ = new_id()
        with self.database.raw_transaction() as cursor:
            cursor.execute(
                "insert into service (id, name, version, endpoint, status, delivery, secret) values (%s, %s, %s, %s, %s, %s, %s)",
                (id_, name, version, endpoint, status, json.dumps(delivery), Vault((KEY,)).seal(SECRET)),
            )
            cursor.execute("insert into service_state (service_id) values (%s)", (id_,))
            cursor.execute("select esb_gate(%s), esb_changed('services')", (name,))
        return id_

    def set_status(self, service_id: str, status: str) -> None:
        with self.database.raw_transaction() as cursor:
            cursor.execute("update service set status = %s where id = %s returning name", (status, service_id))
            (name,) = cursor.fetchone()  # type: ignore[misc]
            cursor.execute("select esb_gate(%s), esb_changed('services')", (name,))

    def end_pause(self, service_id: str) -> None:
        """Let the time of an open circuit be over."""
        with self.database.raw_transaction() as cursor:
            cursor.execute("update service_state set circuit_until = now() where service_id = %s", (service_id,))
            cursor.execute("select esb_gate(name), esb_changed('services') from service where id = %s", (service_id,))

    def route(self, *destinations: Any, **body: Any) -> str:
        id_ = new_id()
        self.sql(
            "insert into route (id, name, body) values (%s, %s, %s)",
            id_,
            id_,
            json.dumps({"destinations": destinations, **body}),
        )
        self.sql("select esb_changed('routes')")
        return id_

    def deliver(
        self,
        destination: str,
        route: str | None = None,
        *,
        i: int = 0,
        key: str | None = None,
        form: tuple[Any, Any] | None = None,
        **message: Any,
    ) -> str:
        """Put a delivery on the lane of `destination`; its id."""
        given = {
            "source": "shop",
            "type": "order.placed",
            "correlation_id": "c-1",
            "headers": "{}",
            "payload": '{"b": 1.0, "a": 2}',
        }
        values = given | {"id": new_id()} | message
        columns = ", ".join(values)
        self.sql(f"insert into message ({columns}) values ({', '.join(['%s'] * len(values))})", *values.values())
        id_ = new_id()
        with self.database.cursor() as cursor:
            lane = lanes.lane_id(cursor, DELIVERY, destination.partition("@")[0])
        if form:
            self.sql(
                "insert into form (delivery_id, payload, headers) values (%s, %s, %s)", id_, *map(json.dumps, form)
            )
        self.sql(
            "insert into job (id, pool, lane_id, route_id, okey, state, message_id, cursor, expires_at) values (%s, 2, %s, %s, %s, %s, %s, %s, %s)",
            id_, lane, route, key, "q" if key else "r", values["id"], json.dumps({"i": i, "dest": destination} | ({"form": True} if form else {})), values.get("expires_at"),
        )  # fmt: skip
        if key:
            self.sql("select esb_promote(array[%s], array[%s])", lane, key)
        if self.engine:
            self.engine.poke()
        return id_

    def ended(self, delivery: str) -> tuple[str, str | None, dict[str, Any]] | None:
        rows = self.sql("select status, class, last from delivery where id = %s", delivery)
        return rows[0] if rows else None

    def open(self, delivery: str) -> dict[str, Any] | None:
        rows = self.sql(
            "select state, tries, cursor, extract(epoch from run_at - now())::float8 from job where id = %s", delivery
        )
        return dict(zip(("state", "tries", "cursor", "in"), rows[0], strict=True)) if rows else None


Eventually = Callable[..., None]


@pytest.fixture
def world(database: Database) -> Iterator[World]:
    world = World(database)
    yield world
    world.stop()


def test_a_delivery_is_a_signed_cloudevent_with_the_headers_of_the_contract(
    world: World, receiver: Receiver, eventually: Eventually
) -> None:
    world.service(
        "billing", receiver.url + "/base/", path="/in", headers={"X-Tenant": "t1", "Authorization": "Bearer s3"}
    )
    world.start()
    headers = {"eventType": "order.placed", "Authorization": "no", "x-tenant": "no", "Note": "ü"}
    delivery = world.deliver(
        "billing",
        external_id="ext-1",
        headers=json.dumps(headers),
        traceparent="00-" + "a" * 32 + "-" + "b" * 16 + "-01",
    )
    eventually(lambda: world.ended(delivery))
    (got,) = receiver.hits
    assert (got.method, got.path, got.body) == ("POST", "/base/in", b'{"b": 1.0, "a": 2}')
    standardwebhooks.Webhook(SECRET).verify(got.body, got.headers)
    expected = {
        "webhook-id": delivery,
        "idempotency-key": delivery,
        "ce-id": "ext-1",
        "ce-source": "shop",
        "ce-type": "order.placed",
        "ce-specversion": "1.0",
        "ce-correlationid": "c-1",
        "ce-traceparent": "00-" + "a" * 32 + "-" + "b" * 16 + "-01",
        "x-correlation-id": "c-1",
        "content-type": "application/json",
        "traceparent": "00-" + "a" * 32 + "-" + "b" * 16 + "-01",
        "x-tenant": "t1",
        "authorization": "Bearer s3",
        "eventtype": "order.placed",
        "note": "%C3%BC",
    }
    assert {name: got.headers.get(name) for name in expected} == expected
    ended = world.ended(delivery)
    assert ended is not None
    status, _, last = ended
    assert (status, last["statusCode"], last["number"], last["outcome"]) == ("delivered", 200, 1, "ok")


def test_the_correlation_id_goes_out_as_it_is_and_a_message_may_name_its_agent(
    world: World, receiver: Receiver, eventually: Eventually
) -> None:
    world.service("billing", receiver.url)
    world.start()
    headers = json.dumps({"User-Agent": "shop/1", "X-Correlation-ID": "other", "Accept-Encoding": "gzip"})
    delivery = world.deliver("billing", headers=headers, correlation_id='50%"')
    eventually(lambda: world.ended(delivery))
    (got,) = receiver.hits
    assert got.headers["x-correlation-id"] == '50%"'
    assert got.headers["ce-correlationid"] == "50%25%22"  # an attribute in a header: CloudEvents, 3.1.3.2
    assert got.headers["user-agent"] == "shop/1"


def test_the_route_says_path_method_and_form(world: World, receiver: Receiver, eventually: Eventually) -> None:
    world.service("billing", receiver.url, path="/never")
    world.start()
    route = world.route("other", {"service": "billing", "path": "/orders/${payload.id}/x", "method": "PUT"})
    delivery = world.deliver("billing", route, i=1, form=({"id": "a/b"}, {"Made": "yes"}))
    eventually(lambda: world.ended(delivery))
    (got,) = receiver.hits
    assert (got.method, got.path, got.body) == ("PUT", "/orders/a%2Fb/x", b'{"id": "a/b"}')
    assert got.headers["made"] == "yes"


def test_an_expression_that_fails_in_the_path_is_dead_and_says_so(
    world: World, receiver: Receiver, eventually: Eventually
) -> None:
    world.service("billing", receiver.url)
    world.start()
    route = world.route({"service": "billing", "path": "/${payload.missing}"})
    delivery = world.deliver("billing", route)
    eventually(lambda: world.ended(delivery))
    assert world.ended(delivery)[:2] == ("dead", "ExpressionError")
    assert receiver.hits == []


def test_a_failure_is_retried_under_the_same_id_by_the_nearest_policy(
    world: World, receiver: Receiver, eventually: Eventually
) -> None:
    receiver.answer = lambda got: Reply(503 if len(receiver.hits) < 3 else 201, b"ok then")
    world.service("billing", receiver.url, retryPolicy={"schedule": [60_000]})
    world.start()
    route = world.route({"service": "billing", "retryPolicy": {"schedule": [50, 50]}}, retryPolicy={"maxRetries": 0})
    delivery = world.deliver("billing", route)
    eventually(lambda: world.ended(delivery))
    status, _, last = world.ended(delivery)
    assert (status, last["number"], last["responseBody"]) == ("delivered", 3, "ok then")
    assert {got.headers["webhook-id"] for got in receiver.hits} == {delivery}
    attempts = world.sql(
        "select number, outcome, detail->>'statusCode' from attempt where delivery_id = %s order by 1", delivery
    )
    assert attempts == [(1, "failed", "503"), (2, "failed", "503")]


def test_retries_that_run_out_end_as_a_dead_letter(world: World, receiver: Receiver, eventually: Eventually) -> None:
    receiver.answer = lambda got: Reply(500, b"\xff\x00broken")
    world.service("billing", receiver.url)
    world.start()
    delivery = world.deliver("billing", world.route("billing", retryPolicy={"schedule": [10]}))
    eventually(lambda: world.ended(delivery))
    status, error_class, last = world.ended(delivery)
    assert (status, error_class, last["responseBody"]) == ("dead", "HttpStatus.500", "\ufffd\ufffdbroken")
    assert world.sql("select delivery_id, class from dead_letter") == [(delivery, "HttpStatus.500")]


def test_other_4xx_and_redirects_are_dead_at_once(world: World, receiver: Receiver, eventually: Eventually) -> None:
    receiver.answer = lambda got: (
        Reply(302, headers=(("Location", receiver.url + "/elsewhere"),)) if got.path == "/r" else Reply(404)
    )
    world.service("a", receiver.url)
    world.service("b", receiver.url, path="/r")
    world.start()
    made = [world.deliver("a"), world.deliver("b")]
    eventually(lambda: all(world.ended(one) for one in made))
    assert [world.ended(one)[:2] for one in made] == [("dead", "HttpStatus.404"), ("dead", "HttpStatus.302")]
    assert len(receiver.hits) == 2


def test_retry_after_is_obeyed_whatever_the_cap_says(world: World, receiver: Receiver, eventually: Eventually) -> None:
    receiver.answer = lambda got: Reply(429, headers=(("Retry-After", "3600"),))
    world.service("billing", receiver.url)
    world.start()
    delivery = world.deliver("billing", world.route("billing", retryPolicy={"maxDelay": 100}))
    eventually(lambda: (world.open(delivery) or {}).get("tries") == 1)
    waiting = world.open(delivery)
    assert waiting["state"] == "s"
    assert 3500 < waiting["in"] <= 3600


def test_410_is_dead_and_takes_the_instance_out(world: World, receiver: Receiver, eventually: Eventually) -> None:
    receiver.answer = lambda got: Reply(410)
    service = world.service("billing", receiver.url)
    world.start()
    delivery = world.deliver("billing")
    eventually(lambda: world.ended(delivery))
    assert world.ended(delivery)[:2] == ("dead", "HttpStatus.410")
    assert world.sql("select status from service where id = %s", service) == [("inactive",)]
    assert world.sql("select gate from lane where pool = 2 and name = 'billing'") == [("no_instance",)]
    assert world.sql("select actor, action, resource_id from audit") == [("bus", "disable", service)]
    assert world.sql("select 1 from message where source = 'esb'") == [], "no route asks for events"


def test_an_instance_that_is_disabled_and_a_circuit_that_moves_are_told_to_who_asks(
    world: World, receiver: Receiver, eventually: Eventually
) -> None:
    receiver.answer = lambda got: Reply(410)
    service = world.service("billing", receiver.url)
    other = world.service("other", receiver.url)
    world.route("pager", pattern="esb.#")
    world.start()
    world.deliver("billing")
    assert circuits.change(world.database, other, 0, "open", 1, -1)
    assert circuits.change(world.database, other, 1, "half_open", 1, 10)
    assert circuits.change(world.database, other, 2, "closed", 0, 0)
    eventually(lambda: len(world.sql("select 1 from message where source = 'esb'")) == 3)
    events = world.sql("select type, payload::jsonb->>'serviceId' from message where source = 'esb' order by type")
    assert events == [("esb.circuit.closed", other), ("esb.circuit.opened", other), ("esb.service.disabled", service)]
    assert len(world.sql("select 1 from job where pool = 1")) == 3, "they are routed like any message"


def test_an_address_outside_the_configuration_is_dead_and_no_blame_of_the_instance(
    world: World, eventually: Eventually
) -> None:
    service = world.service("meta", "http://169.254.169.254/latest")
    world.start()
    made = [world.deliver("meta") for _ in range(7)]
    eventually(lambda: all(world.ended(one) for one in made))
    status, error_class, last = world.ended(made[0])
    assert (status, error_class) == ("dead", "AddressRefused")
    assert "169.254.169.254" in last["error"]
    assert world.sql("select circuit from service_state where service_id = %s", service) == [("closed",)]


def test_a_timeout_is_told_and_retried(world: World, receiver: Receiver, eventually: Eventually) -> None:
    receiver.answer = lambda got: Reply(delay=0.5)
    world.service("slow", receiver.url, timeout=150)
    world.start()
    delivery = world.deliver("slow", world.route("slow", retryPolicy={"maxRetries": 0}))
    eventually(lambda: world.ended(delivery))
    status, error_class, last = world.ended(delivery)
    assert (status, error_class) == ("dead", "Timeout")
    assert 140 <= last["durationMs"] < 1500


def test_an_expired_delivery_is_not_sent(world: World, receiver: Receiver, eventually: Eventually) -> None:
    world.service("billing", receiver.url)
    delivery = world.deliver("billing", expires_at="2020-01-01T00:00:00Z")
    world.start()
    eventually(lambda: world.ended(delivery))
    assert world.ended(delivery)[0] == "expired"
    assert receiver.hits == []


# --- held


def test_a_delivery_to_a_name_nobody_bears_goes_out_when_somebody_registers(
    world: World, receiver: Receiver, eventually: Eventually
) -> None:
    world.start()
    delivery = world.deliver("later")
    assert world.sql("select gate from lane where pool = 2 and name = 'later'") == [("no_instance",)]
    world.service("later", receiver.url)
    eventually(lambda: world.ended(delivery))
    assert len(receiver.hits) == 1


def test_a_held_delivery_goes_out_when_maintenance_ends(
    world: World, receiver: Receiver, eventually: Eventually
) -> None:
    service = world.service("billing", receiver.url, status="maintenance")
    world.start()
    delivery = world.deliver("billing")
    assert world.sql("select gate from lane where pool = 2 and name = 'billing'") == [("maintenance",)]
    world.set_status(service, "active")
    eventually(lambda: world.ended(delivery))
    assert len(receiver.hits) == 1
    assert world.ended(delivery)[2]["number"] == 1


def test_a_version_nobody_has_is_held_with_the_reason_and_costs_no_try(
    world: World, receiver: Receiver, eventually: Eventually
) -> None:
    world.service("billing", receiver.url, "1.4.0")
    world.start()
    delivery = world.deliver("billing@^2")
    eventually(lambda: ((world.open(delivery) or {}).get("cursor") or {}).get("held") == "no_matching_version")
    assert world.open(delivery)["tries"] == 0
    world.service("billing", receiver.url + "/two", "2.1.0")
    eventually(lambda: world.ended(delivery))
    assert [got.path for got in receiver.hits] == ["/two"]


def test_of_several_instances_the_range_and_the_weights_choose(
    world: World, receiver: Receiver, eventually: Eventually
) -> None:
    world.service("billing", receiver.url + "/1", "1.0.0", weight=1)
    world.service("billing", receiver.url + "/2", "2.0.0")
    world.start()
    made = [world.deliver("billing@^1") for _ in range(10)]
    eventually(lambda: all(world.ended(one) for one in made))
    assert {got.path for got in receiver.hits} == {"/1"}


# --- circuits


def circuit(world: World, service: str) -> tuple[Any, ...]:
    return world.sql("select circuit, circuit_opens from service_state where service_id = %s", service)[0]


def test_the_circuit_opens_after_five_failures_in_a_row_holds_the_rest_and_closes_by_one_probe(
    world: World, receiver: Receiver, eventually: Eventually
) -> None:
    receiver.answer = lambda got: Reply(500)
    service = world.service("sick", receiver.url)
    world.start()
    route = world.route("sick", retryPolicy={"maxRetries": 0})
    made = [world.deliver("sick", route, key="k") for _ in range(12)]
    eventually(lambda: circuit(world, service) == ("open", 1))
    assert len(receiver.hits) == 5
    eventually(lambda: sum(world.ended(one) is not None for one in made) == 5)
    assert world.sql("select gate, gate_until > now() from lane where pool = 2 and name = 'sick'") == [
        ("circuit_open", True)
    ]
    receiver.answer = lambda got: Reply(200)
    world.end_pause(service)
    eventually(lambda: all(world.ended(one) for one in made))
    assert circuit(world, service) == ("closed", 0)
    assert len(receiver.hits) == 12


def test_a_probe_that_fails_opens_the_circuit_for_twice_as_long(
    world: World, receiver: Receiver, eventually: Eventually
) -> None:
    receiver.answer = lambda got: Reply(500)
    service = world.service("sick", receiver.url)
    world.start()
    route = world.route("sick", retryPolicy={"schedule": [1] * 50})
    for _ in range(3):
        world.deliver("sick", route)
    eventually(lambda: circuit(world, service) == ("open", 1))
    before = len(receiver.hits)
    world.end_pause(service)
    eventually(lambda: circuit(world, service) == ("open", 2))
    assert len(receiver.hits) == before + 1
    ((seconds,),) = world.sql(
        "select extract(epoch from circuit_until - now())::float8 from service_state where service_id = %s", service
    )
    assert 18 < seconds <= 20


def test_of_all_who_ask_one_gets_the_probe(world: World, receiver: Receiver) -> None:
    service = world.service("sick", receiver.url)
    assert circuits.change(world.database, service, 0, "open", 1, -1)
    granted: list[bool] = []

    def ask() -> None:
        granted.append(circuits.change(world.database, service, 1, "half_open", 1, 30))

    threads = [threading.Thread(target=ask) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(granted) == [False] * 5 + [True]


def test_with_one_circuit_open_the_other_instance_takes_the_deliveries(
    world: World, receiver: Receiver, eventually: Eventually
) -> None:
    sick = world.service("billing", receiver.url + "/sick")
    world.service("billing", receiver.url + "/well", "1.0.1")
    assert circuits.change(world.database, sick, 0, "open", 1, 60)
    world.start()
    made = [world.deliver("billing") for _ in range(10)]
    eventually(lambda: all(world.ended(one) for one in made))
    assert {got.path for got in receiver.hits} == {"/well"}


# --- order, replies


def test_an_attempt_that_comes_back_when_another_has_been_made_is_superseded(world: World) -> None:
    delivery = world.deliver("nobody")
    with world.database.cursor() as cursor:
        cursor.execute("update lane set gate_until = '-infinity'")
        first, second = (workers.register(cursor, DELIVERY, "here", 1, "0", 60) for _ in range(2))
        (lost,) = jobs.claim(cursor, DELIVERY, first, 1, 1)
        workers.retire(cursor, first)
        jobs.sweep(cursor, 60)
        (taken,) = jobs.claim(cursor, DELIVERY, second, 1, 1)
    outcomes = world.sql("select number, outcome from attempt where delivery_id = %s", delivery)
    assert outcomes == [(1, "unknown")]
    found = {"id": delivery, "o": "ok", "detail": {"statusCode": 200}}
    assert (
        deliveries.record(
            world.database, first, [found | {"attempt": lost.attempt}], disables={}, replies={}, onwards={}, forms={}
        ).ids
        == []
    )
    assert world.ended(delivery) is None, "it decides nothing"
    attempts = world.sql("select number, outcome, detail->>'statusCode' from attempt where delivery_id = %s", delivery)
    assert attempts == [(1, "superseded", "200")]
    assert deliveries.record(
        world.database, second, [found | {"attempt": taken.attempt}], disables={}, replies={}, onwards={}, forms={}
    ).ids


def test_a_key_is_delivered_in_order_over_retries(world: World, receiver: Receiver, eventually: Eventually) -> None:
    def answer(got: Hit) -> Reply:
        return Reply(503 if got.body == b"3" and sum(r.body == b"3" for r in receiver.hits) < 3 else 200)

    receiver.answer = answer
    world.service("billing", receiver.url)
    world.start()
    route = world.route("billing", retryPolicy={"schedule": [30, 30, 30]})
    made = [world.deliver("billing", route, key="k", payload=str(n)) for n in range(8)]
    eventually(lambda: all(world.ended(one) for one in made))
    assert [got.body for got in receiver.hits] == [b"0", b"1", b"2", b"3", b"3", b"3", b"4", b"5", b"6", b"7"]


def test_a_dead_head_blocks_its_key_where_the_destination_says_so(
    world: World, receiver: Receiver, eventually: Eventually
) -> None:
    receiver.answer = lambda got: Reply(400 if got.body == b"0" else 200)
    world.service("billing", receiver.url)
    world.start()
    blocking = world.route({"service": "billing", "onDead": "block"})
    first = world.deliver("billing", blocking, key="k", payload="0")
    second = world.deliver("billing", blocking, key="k", payload="1")
    other = world.deliver("billing", key="other", payload="2")
    eventually(lambda: world.ended(other) and (world.open(first) or {}).get("state") == "b")
    assert world.open(second)["state"] == "q"


def test_the_first_answer_goes_to_the_service_in_reply_to_once(
    world: World, receiver: Receiver, eventually: Eventually
) -> None:
    receiver.answer = lambda got: Reply(200, b'{"total": 7}')
    world.service("billing", receiver.url)
    world.service("asker", receiver.url + "/asker")
    world.start()
    first = world.deliver("billing", reply_to="asker")
    eventually(lambda: world.ended(first) and len(receiver.hits) == 2)
    got = receiver.hits[1]
    assert got.path == "/asker"
    assert got.body == b'{"total": 7}'
    assert (got.headers["ce-type"], got.headers["x-correlation-id"]) == ("order.placed.reply", "c-1")


def test_a_reply_outside_the_clients_grant_is_forbidden(
    world: World, receiver: Receiver, eventually: Eventually
) -> None:
    client = new_id()
    world.sql("insert into client (id, name, allowed_services) values (%s, 'c', %s)", client, ["billing"])
    world.service("billing", receiver.url)
    world.service("asker", receiver.url)
    world.start()
    first = world.deliver("billing", client_id=client, reply_to="asker")
    eventually(lambda: world.ended(first))
    assert [status for (status,) in world.sql("select status from delivery order by id")] == ["delivered", "forbidden"]
    assert len(receiver.hits) == 1


def test_many_deliveries_arrive_each_once(world: World, receiver: Receiver, eventually: Eventually) -> None:
    world.service("billing", receiver.url)
    made = [world.deliver("billing") for _ in range(300)]
    world.start()
    eventually(lambda: world.sql("select count(*) from delivery where status = 'delivered'") == [(300,)], seconds=30)
    assert sorted(got.headers["webhook-id"] for got in receiver.hits) == sorted(made)
