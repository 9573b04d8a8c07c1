"""Deliveries in order by key, attempts that come back too late, and replies."""

from __future__ import annotations

from esb_workers.store import deliveries, jobs, workers
from esb_workers.store.ids import new_id
from tests.support.deliveries import DELIVERY, Eventually, World
from tests.support.receiver import Hit, Receiver, Reply


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
