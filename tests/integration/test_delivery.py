"""Deliveries on a real database to real receivers: prepare, call, record."""

from __future__ import annotations

import json

import standardwebhooks

from esb_workers.store import circuits
from tests.support.deliveries import SECRET, Eventually, World
from tests.support.receiver import Receiver, Reply


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
