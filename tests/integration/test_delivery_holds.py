"""Deliveries that are held, and go on by themselves: nobody there, maintenance, circuits."""

from __future__ import annotations

import threading
from typing import Any

from esb_workers.store import circuits
from tests.support.deliveries import Eventually, World
from tests.support.receiver import Receiver, Reply

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
