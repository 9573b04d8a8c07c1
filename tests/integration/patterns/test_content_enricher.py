"""Content enricher: what a service knows is added to the payload, by a bounded, cached call."""

from __future__ import annotations

from typing import Any

import standardwebhooks

from tests.integration.patterns.conftest import Scene
from tests.support.bus import wait_until
from tests.support.receiver import Hit, Reply

ASK = {"type": "enrich", "service": "customers", "path": "c/${payload.customer}", "resultPath": "who"}
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


def known(hit: Hit) -> Reply:
    return Reply.json({"name": hit.path.rsplit("/", 1)[1].upper()})


def test_the_answer_of_a_service_is_put_into_the_payload(running: Scene) -> None:
    customers = running.service("customers", known)
    running.service("desk")
    running.route(destinations=["desk"], transformation=[ASK, {"type": "set", "fields": {"hi": "${payload.who.name}"}}])
    shown = running.ended(running.send({"customer": "ann"}, correlationId="c-1"))
    assert running.got("desk") == [{"customer": "ann", "who": {"name": "ANN"}, "hi": "ANN"}]
    (call,) = customers.hits
    assert (call.method, call.path, call.headers["x-correlation-id"]) == ("GET", "/c/ann", "c-1")
    assert call.key == f"{shown['deliveries'][0]['id']}:enrich:0"


def test_without_a_place_an_object_is_merged_and_a_payload_is_posted(running: Scene) -> None:
    secret = {"signingSecret": SECRET}
    customers = running.service("customers", lambda hit: Reply.json({"vip": True}), delivery=secret)
    running.service("desk")
    running.route(destinations=["desk"], transformation={
        "type": "enrich", "service": "customers", "payload": {"id": "${payload.customer}"},
    })  # fmt: skip
    running.ended(running.send({"customer": "ann"}))
    assert running.got("desk") == [{"customer": "ann", "vip": True}]
    assert (customers.hits[0].method, customers.hits[0].json) == ("POST", {"id": "ann"})
    standardwebhooks.Webhook(SECRET).verify(customers.hits[0].body, customers.hits[0].headers)


def test_an_answer_is_remembered_for_as_long_as_the_route_says(running: Scene) -> None:
    customers = running.service("customers", known)
    running.service("desk")
    running.route(destinations=["desk"], transformation=ASK | {"cacheSeconds": 60})
    for customer in ("ann", "ann", "bob", "ann"):
        running.ended(running.send({"customer": customer}))
    assert [hit.path for hit in customers.hits] == ["/c/ann", "/c/bob"]


def test_a_service_that_fails_is_asked_again_and_every_attempt_at_the_destination_sends_the_same(
    running: Scene,
) -> None:
    answers = iter([Reply(503), Reply.json({"n": 1}), Reply.json({"n": 2})])
    refusals = iter([Reply(503), Reply()])
    running.service("customers", lambda hit: next(answers))
    running.service("desk", lambda hit: next(refusals))
    policy = {"maxRetries": 3, "backoffStrategy": "fixed", "initialDelay": 20}
    running.route(destinations=["desk"], transformation=ASK, retryPolicy=policy)
    shown = running.ended(running.send({"customer": "ann"}))
    assert [body["who"] for body in running.got("desk", 2)] == [{"n": 1}, {"n": 1}]
    errors = [attempt["error"] for attempt in shown["deliveries"][0]["attempts"]]
    assert errors[0] is not None and "customers answered 503" in errors[0]
    assert len(errors) == 3 and errors[2] is None


def test_what_cannot_be_enriched_is_a_dead_letter_that_can_be_retried(running: Scene) -> None:
    customers = running.service("customers", lambda hit: Reply(404))
    running.service("desk")
    running.route(destinations=["desk"], transformation=ASK)
    shown = running.ended(running.send({"customer": "ann"}))
    (delivery,) = shown["deliveries"]
    assert delivery["errorClass"] == "HttpStatus.404" and "customers answered 404" in delivery["reason"]
    customers.answer = known
    running.api.post(f"/routing/deliveries/{delivery['id']}/retry")
    wait_until(lambda: running.message(shown["id"])["status"] == "delivered")
    assert running.got("desk") == [{"customer": "ann", "who": {"name": "ANN"}}]


def test_a_slow_service_holds_up_neither_routing_nor_what_else_goes_to_the_destination(running: Scene) -> None:
    running.service("customers", lambda hit: Reply(200, b"{}", delay=2))
    running.service("desk")
    running.route(name="slow", pattern="slow", destinations=["desk"], transformation=ASK)
    running.route(name="quick", pattern="quick", destinations=["desk"])
    slow = [running.send({"customer": "ann"}, messageType="slow") for _ in range(6)]
    quick = [running.ended(running.send(n, messageType="quick"), seconds=1.9) for n in range(5)]
    assert {shown["status"] for shown in quick} == {"delivered"}
    assert running.message(slow[-1])["status"] == "routed"


def test_the_deliveries_of_a_key_stay_in_order_while_they_are_enriched(running: Scene) -> None:
    running.service("customers", lambda hit: Reply(200, b"{}", delay=0.1 if hit.path == "/c/0" else 0))
    running.service("desk")
    running.route(destinations=["desk"], transformation=ASK)
    for n in range(5):
        running.send({"customer": str(n)}, orderingKey="k")
    assert [body["customer"] for body in running.got("desk", 5)] == list("01234")


def test_parts_of_a_split_message_and_collections_are_enriched_too(running: Scene) -> None:
    running.service("customers", known)
    running.service("desk")
    ask_item = {"type": "enrich", "service": "customers", "path": "c/${item.id}"}
    running.route(destinations=["desk"], split={"items": "${payload}"}, transformation=ask_item)
    running.ended(running.send([{"id": "a"}, {"id": "b"}]))
    assert sorted(body["name"] for body in running.got("desk", 2)) == ["A", "B"]
    ask_all = {"type": "enrich", "service": "customers", "path": "c/${size(payload)}", "resultPath": "0"}
    running.service("hall")
    hall: dict[str, Any] = {"service": "hall", "transformation": ask_all}
    running.route(name="all", pattern="all", destinations=[hall], aggregate={"key": "k", "size": 2}, priority=1,
                  stopOnMatch=True)  # fmt: skip
    for n in (1, 2):
        running.send(n, messageType="all")
    assert running.got("hall") == [[{"name": "2"}, 2]]


def test_a_later_stop_of_a_slip_has_its_own_transformation(running: Scene) -> None:
    running.service("a", lambda hit: Reply.json({"customer": "ann"}))
    running.service("customers", known)
    running.service("b")
    running.route(slip=["a", "b"], destinations=[{"service": "b", "transformation": ASK}])
    running.ended(running.send({}))
    assert running.got("b") == [{"customer": "ann", "who": {"name": "ANN"}}]


def test_the_clients_grant_binds_the_service_that_is_asked(running: Scene) -> None:
    running.service("customers")
    running.route(destinations=["desk"], transformation=ASK)
    key = running.api.post("/clients", {"name": "shop", "allowedServices": ["desk"]}).json["apiKey"]
    body = {"source": "s", "messageType": "t", "payload": {"customer": "ann"}}
    sent = running.api.with_key(key).post("/routing/send", body).json["messageId"]
    (delivery,) = running.ended(sent)["deliveries"]
    assert delivery["status"] == "forbidden" and "customers" in delivery["reason"]
    assert running.services["customers"].hits == []


def test_a_dry_run_calls_nobody_and_faults_are_named(scene: Scene) -> None:
    customers = scene.service("customers")
    scene.route(destinations=["desk"], transformation=ASK)
    dry = scene.api.post("/routing/test", {"message": {"messageType": "t", "payload": {"customer": "ann"}}}).json
    assert "not called in a dry run" in dry["items"][0]["deliveries"][0]["error"]
    assert customers.hits == []
    wrong = {"type": "enrich", "path": "${", "cacheSeconds": -1, "colour": 1}
    at = "transformation"
    assert scene.faults(name="w", transformation=wrong) == {
        f"{at}.service", f"{at}.path", f"{at}.cacheSeconds", f"{at}.colour",
    }  # fmt: skip
    assert scene.faults(name="w", transformation=ASK, strategy="first_available") == {"strategy"}
