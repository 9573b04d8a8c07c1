"""What became of messages: the log, one message, and what people do to them."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

from esb_workers.clock import to_wire
from esb_workers.store.engine import Database
from tests.support.api import ApiClient
from tests.support.engines import Engines
from tests.support.messages import SLOW, Eventually, names, read, route, send, serve, settled
from tests.support.receiver import Receiver, Reply

NEVER = {"maxRetries": 0}


def test_a_delivered_message_shows_every_attempt_and_all_that_happened(
    api: ApiClient, receiver: Receiver, running: Engines, eventually: Eventually
) -> None:
    receiver.answer = lambda hit: Reply(503, b"later") if len(receiver.hits) == 1 else Reply.json({"ok": 1})
    serve(api, receiver)
    made = route(api)
    shown = settled(api, send(api), eventually, "delivered")
    (delivery,) = shown["deliveries"]
    assert (delivery["route"], delivery["routeId"], delivery["destination"]) == ("orders", made["id"], "crm")
    assert (delivery["status"], delivery["nextAttemptAt"], delivery["errorClass"]) == ("delivered", None, None)
    first, second = delivery["attempts"]
    assert (first["number"], first["statusCode"], first["outcome"], first["responseBody"]) == (
        1,
        503,
        "failed",
        "later",
    )
    assert (second["number"], second["statusCode"], second["outcome"], second["error"]) == (2, 200, "ok", None)
    assert json.loads(second["responseBody"]) == {"ok": 1}
    assert first["startedAt"] < second["startedAt"]
    assert all(attempt["durationMs"] >= 0 for attempt in delivery["attempts"])
    assert names(shown) == [
        "message.accepted", "message.routed", "delivery.attempted", "delivery.attempted", "delivery.delivered",
        "message.delivered",
    ]  # fmt: skip
    assert [line["seq"] for line in shown["timeline"]] == [1, 2, 3, 4, 5, 6]
    assert receiver.hits[0].key == receiver.hits[1].key == delivery["id"]
    assert receiver.hits[0].headers["ce-id"] == shown["messageId"]


def test_a_message_no_route_takes_is_unroutable(api: ApiClient, running: Engines, eventually: Eventually) -> None:
    shown = settled(api, send(api), eventually, "unroutable")
    assert shown["reason"]
    assert names(shown) == ["message.accepted", "message.unroutable"]


def test_one_dead_delivery_makes_a_message_partially_delivered_and_all_dead_make_it_failed(
    api: ApiClient, receiver: Receiver, running: Engines, eventually: Eventually
) -> None:
    receiver.answer = lambda hit: Reply(400 if hit.path == "/bad" else 200)
    serve(api, receiver)
    route(api, "crm", {"service": "crm", "path": "/bad"})
    shown = settled(api, send(api), eventually, "partially_delivered")
    assert sorted(delivery["status"] for delivery in shown["deliveries"]) == ["dead", "delivered"]
    assert {delivery["errorClass"] for delivery in shown["deliveries"]} == {None, "HttpStatus.400"}
    receiver.answer = lambda hit: Reply(400)
    settled(api, send(api), eventually, "failed")


def test_a_failing_delivery_waits_for_its_next_attempt(
    api: ApiClient, receiver: Receiver, running: Engines, eventually: Eventually
) -> None:
    receiver.answer = lambda hit: Reply(500)
    serve(api, receiver)
    route(api, retryPolicy=SLOW)
    message = send(api)
    eventually(lambda: [d["status"] for d in read(api, message)["deliveries"]] == ["retrying"])
    shown = read(api, message)
    assert shown["status"] == "routed"
    assert len(shown["deliveries"][0]["attempts"]) == 1
    assert shown["deliveries"][0]["nextAttemptAt"] > to_wire(datetime.now(UTC) + timedelta(seconds=30))  # type: ignore[operator]


def test_a_delivery_to_a_service_in_maintenance_is_held_and_goes_on_when_it_ends(
    api: ApiClient, receiver: Receiver, running: Engines, eventually: Eventually
) -> None:
    made = serve(api, receiver)
    route(api)
    api.patch(f"/services/{made['id']}/status", {"status": "maintenance"})
    message = send(api)
    eventually(
        lambda: [(d["status"], d["reason"]) for d in read(api, message)["deliveries"]] == [("held", "maintenance")]
    )
    assert read(api, message)["status"] == "routed"
    assert read(api, message)["deliveries"][0]["attempts"] == []
    api.patch(f"/services/{made['id']}/status", {"status": "active"})
    shown = settled(api, message, eventually, "delivered")
    assert [attempt["number"] for attempt in shown["deliveries"][0]["attempts"]] == [1]


def test_a_delivery_outside_the_grant_is_forbidden_and_the_rest_go_out(
    api: ApiClient, receiver: Receiver, running: Engines, eventually: Eventually
) -> None:
    serve(api, receiver)
    serve(api, receiver, name="vault")
    route(api, "crm", "vault")
    key = api.post("/clients", {"name": "app", "allowedServices": ["crm"]}).json["apiKey"]
    client = api.with_key(key)
    shown = settled(client, send(client), eventually, "partially_delivered")
    assert {d["destination"]: d["status"] for d in shown["deliveries"]} == {"crm": "delivered", "vault": "forbidden"}
    (forbidden,) = [d["id"] for d in shown["deliveries"] if d["status"] == "forbidden"]
    assert api.post(f"/routing/deliveries/{forbidden}/retry").status_code == 409


def test_a_failing_transformation_ends_that_delivery_alone(
    api: ApiClient, receiver: Receiver, running: Engines, eventually: Eventually
) -> None:
    serve(api, receiver)
    broken = {"service": "crm", "transformation": {"type": "template", "output": "${payload.missing}"}}
    route(api, "crm", broken)
    shown = settled(api, send(api), eventually, "partially_delivered")
    (dead,) = [d for d in shown["deliveries"] if d["status"] == "dead"]
    assert (dead["errorClass"], dead["attempts"]) == ("TransformationError", [])
    assert dead["reason"]


def test_what_expires_undelivered_is_expired(
    api: ApiClient, receiver: Receiver, running: Engines, eventually: Eventually, database: Database
) -> None:
    from esb_workers.store import jobs

    route(api)  # to a service nobody registered: held
    message = send(api, expiresAt=to_wire(datetime.now(UTC) + timedelta(seconds=1.5)))
    eventually(lambda: read(api, message)["deliveries"])

    def expired() -> bool:
        with database.cursor() as cursor:  # the scheduler's part
            jobs.expire(cursor)
        return bool(read(api, message)["status"] == "expired")

    eventually(expired)
