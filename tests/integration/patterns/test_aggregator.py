"""Aggregator and scatter-gather: payloads of one key become one delivery, whose payload is their list."""

from __future__ import annotations

import threading

from esb_workers.store import groups, jobs, workers
from tests.integration.patterns.conftest import Scene
from tests.support.bus import wait_until
from tests.support.receiver import Hit, Reply

BY_ORDER = {"key": "${payload.order}"}


def lists(scene: Scene, count: int) -> list[list[int]]:
    return sorted([part["n"] for part in body] for body in scene.got("desk", count))


def test_so_many_payloads_of_one_key_become_one_delivery(running: Scene) -> None:
    running.service("desk")
    running.route(destinations=["desk"], aggregate={**BY_ORDER, "size": 3})
    sent = [running.send({"order": n % 2, "n": n}) for n in range(6)]
    assert lists(running, 2) == [[0, 2, 4], [1, 3, 5]]
    ended = [running.ended(message) for message in sent]
    assert {shown["status"] for shown in ended} == {"delivered"}
    assert len({shown["deliveries"][0]["collectedInto"] for shown in ended}) == 2


def test_a_message_is_open_until_what_it_is_part_of_is_delivered_and_its_history_says_so(running: Scene) -> None:
    running.service("desk")
    running.route(destinations=["desk"], aggregate={"key": "k", "size": 2})
    first = running.send({"n": 1})
    wait_until(lambda: running.message(first)["status"] == "routed")
    assert running.message(first)["deliveries"][0]["status"] == "pending"
    second = running.send({"n": 2})
    shown = running.ended(first)
    whole = running.ended(shown["deliveries"][0]["collectedInto"])
    assert whole["payload"] == [{"n": 1}, {"n": 2}] and whole["correlationId"] == shown["correlationId"]
    assert [line["type"] for line in shown["timeline"]][1:3] == ["message.routed", "delivery.collected"]
    assert running.ended(second)["status"] == "delivered"


def test_open_messages_are_found_by_their_status_though_they_are_part_of_another(running: Scene) -> None:
    desk = running.service("desk")
    desk.answer = lambda hit: Reply(503)
    running.route(destinations=["desk"], aggregate={"key": "k", "size": 2}, retryPolicy={"schedule": [60_000]})
    sent = [running.send({"n": n}) for n in (1, 2)]
    wait_until(lambda: running.message(sent[0])["deliveries"][0:1] and desk.hits)
    found = {message["id"] for message in running.api.get("/routing/logs?status=routed").json["items"]}
    assert {running.message(one)["status"] for one in sent} == {"routed"}
    assert found >= set(sent) and len(found) == 3


def test_a_collection_that_does_not_fill_goes_out_at_its_timeout(running: Scene) -> None:
    running.service("desk")
    running.route(destinations=["desk"], aggregate={"key": "k", "size": 99, "timeout": 400})
    running.send({"n": 1})
    running.send({"n": 2})
    assert lists(running, 1) == [[1, 2]]


def test_a_collection_is_complete_with_the_payload_for_which_when_holds(running: Scene) -> None:
    running.service("desk")
    running.route(destinations=["desk"], aggregate={**BY_ORDER, "when": "payload.last"})
    for n in range(3):
        running.send({"order": 1, "n": n, "last": n == 2})
    assert lists(running, 1) == [[0, 1, 2]]


def test_when_may_look_at_all_that_has_come_so_far(running: Scene) -> None:
    running.service("desk")
    running.route(destinations=["desk"], aggregate={"key": "k", "when": "count >= 2 && items[0].n + payload.n >= 4"})
    for n in (1, 2, 3):
        running.send({"n": n})
    assert lists(running, 1) == [[1, 2, 3]]


def test_collections_survive_that_every_worker_is_gone(scene: Scene) -> None:
    scene.service("desk")
    scene.route(destinations=["desk"], aggregate={"key": "k", "size": 2})
    with scene.work():
        first = scene.send({"n": 1})
        wait_until(lambda: scene.message(first)["status"] == "routed")
    scene.send({"n": 2})
    with scene.work():
        assert lists(scene, 1) == [[1, 2]]


def test_a_worker_that_comes_back_from_the_dead_lets_nothing_out_a_second_time(scene: Scene) -> None:
    scene.service("desk")
    scene.route(destinations=["desk"], aggregate={"key": "k", "size": 2, "timeout": 60_000})
    with scene.work():
        first = scene.send({"n": 1})
        wait_until(lambda: scene.message(first)["status"] == "routed")
    with scene.database.cursor() as cursor:
        cursor.execute("update job set state = 'r', run_at = now() where cursor->>'gather' = 'aggregate'")
        zombie = workers.register(cursor, 1, "host", 1, "0", 60)
        (claim,) = jobs.claim(cursor, 1, zombie, 10, 10, lease_seconds=0)
        held = groups.members(cursor, claim.id, 10, 1000)
    with scene.work():
        scene.send({"n": 2})
        assert lists(scene, 1) == [[1, 2]]
    late = {"id": claim.id, "attempt": claim.attempt, "inbox": claim.inbox, "cursor": {}, "due": None}
    with scene.database.raw_transaction() as cursor:
        done = groups.release(cursor, zombie, late | {"send": [held[0].id], "sets": []})
    assert done.ids == [] and done.keys == []


def test_what_was_gathered_ends_with_a_collection_that_kills_its_workers(scene: Scene) -> None:
    scene.service("desk")
    scene.route(destinations=["desk"], aggregate={"key": "k", "size": 2})
    with scene.work():
        first = scene.send({"n": 1})
        wait_until(lambda: scene.message(first)["status"] == "routed")
    with scene.database.cursor() as cursor:
        cursor.execute("update job set state = 'b', losses = 5 where cursor->>'gather' = 'aggregate'")
        jobs.poison(cursor)
    shown = scene.message(first)
    assert (shown["status"], shown["deliveries"][0]["errorClass"]) == ("failed", "worker_lost")
    assert scene.api.get("/routing/dead-letters").json["items"][0]["id"] == shown["deliveries"][0]["id"]
    with scene.work():
        scene.send({"n": 2})
        scene.send({"n": 3})
        assert lists(scene, 1) == [[2, 3]]


def test_what_waits_to_be_collected_cannot_be_retried(running: Scene) -> None:
    running.service("desk")
    running.route(destinations=["desk"], aggregate={"key": "k", "size": 2})
    first = running.send({"n": 1})
    wait_until(lambda: running.message(first)["status"] == "routed")
    delivery = running.message(first)["deliveries"][0]["id"]
    assert running.api.post(f"/routing/deliveries/{delivery}/retry").status_code == 409
    running.send({"n": 2})
    assert lists(running, 1) == [[1, 2]]


def test_two_routing_workers_lose_nothing_and_double_nothing(scene: Scene) -> None:
    scene.service("desk")
    scene.route(destinations=["desk"], aggregate={**BY_ORDER, "size": 5})
    with scene.work(), scene.work():
        senders = [
            threading.Thread(target=lambda s=s: [scene.send({"order": n % 4, "n": 100 * s + n}) for n in range(20)])
            for s in range(3)
        ]
        for sender in senders:
            sender.start()
        for sender in senders:
            sender.join()
        bodies = scene.got("desk", 12)
    assert sorted(part["n"] for body in bodies for part in body) == sorted(
        100 * s + n for s in range(3) for n in range(20)
    )
    assert all(len(body) == 5 and len({part["order"] for part in body}) == 1 for body in bodies)


def test_what_is_cancelled_or_forbidden_is_not_collected(running: Scene) -> None:
    running.service("desk")
    running.route(destinations=["desk"], aggregate={"key": "k", "size": 2})
    gone = running.send({"n": 1})
    wait_until(lambda: running.message(gone)["status"] == "routed")
    assert running.api.post(f"/routing/messages/{gone}/cancel").status_code == 200
    key = running.api.post("/clients", {"name": "shop", "allowedServices": ["other"]}).json["apiKey"]
    body = {"source": "s", "messageType": "t", "payload": {"n": 2}}
    barred = running.api.with_key(key).post("/routing/send", body).json["messageId"]
    assert running.ended(barred)["deliveries"][0]["status"] == "forbidden"
    running.send({"n": 3})
    running.send({"n": 4})
    assert lists(running, 1) == [[3, 4]]


def test_a_message_of_many_parts_is_put_together_again(running: Scene) -> None:
    """The composed message processor: split, work on each part, aggregate."""
    running.service("desk")
    running.route(
        destinations=[{"service": "desk", "transformation": {"type": "template", "output": {"sum": "${payload}"}}}],
        split={"items": "${payload.lines}"},
        transformation={"type": "template", "output": "${item.n * 10}"},
        aggregate={"key": "${message.id}", "when": "index == size(message.payload.lines) - 1"},
    )
    shown = running.ended(running.send({"lines": [{"n": 1}, {"n": 2}, {"n": 3}]}))
    assert shown["status"] == "delivered"
    assert running.got("desk") == [{"sum": [10, 20, 30]}]


def test_scatter_gather_asks_many_and_answers_once(running: Scene) -> None:
    """Each offer comes back as a message of its own; what ties them together is the correlation id."""

    def offer(name: str, price: int) -> None:
        def answer(hit: Hit) -> Reply:
            body = {"source": name, "messageType": "quote.offer", "payload": {"n": price}}
            running.api.post("/routing/send", body | {"correlationId": hit.headers["x-correlation-id"]})
            return Reply()

        running.service(name, answer)

    running.service("desk")
    offer("north", 30)
    offer("south", 20)
    running.route(name="ask", pattern="quote.asked", recipients="${payload.suppliers}")
    running.route(name="gather", pattern="quote.offer", destinations=["desk"], aggregate={"size": 2, "timeout": 5000})
    running.send({"suppliers": ["north", "south"]}, messageType="quote.asked")
    assert sorted(lists(running, 1)[0]) == [20, 30]


def test_a_failed_collection_fails_its_messages_and_a_retry_mends_them_all(running: Scene) -> None:
    desk = running.service("desk")
    good, desk.answer = desk.answer, lambda hit: Reply(400)
    running.route(destinations=["desk"], aggregate={"key": "k", "size": 2})
    sent = [running.send({"n": n}) for n in (1, 2)]
    shown = running.ended(sent[0])
    assert shown["status"] == "failed" and shown["deliveries"][0]["status"] == "dead"
    assert running.api.post(f"/routing/deliveries/{shown['deliveries'][0]['id']}/retry").status_code == 409
    desk.answer = good
    whole = running.message(shown["deliveries"][0]["collectedInto"])
    assert running.api.post(f"/routing/deliveries/{whole['deliveries'][0]['id']}/retry").status_code == 200
    wait_until(lambda: {running.message(message)["status"] for message in sent} == {"delivered"})


def test_a_collection_must_have_an_end(scene: Scene) -> None:
    assert scene.faults(aggregate={"key": "k"}) == {"aggregate.size"}
    assert scene.faults(aggregate={"size": 0, "colour": 1}) == {"aggregate.size", "aggregate.colour"}
    assert scene.faults(aggregate={"size": 2}, strategy="first_available") == {"aggregate"}
