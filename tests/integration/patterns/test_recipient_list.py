"""Recipient list and dynamic router: the message says where it goes."""

from __future__ import annotations

from tests.integration.patterns.conftest import Scene

TO = {"strategy": "recipient_list", "recipients": "${payload.to}"}


def test_the_message_goes_to_the_services_it_names_once_each(running: Scene) -> None:
    for name in ("a", "b", "c"):
        running.service(name)
    running.route(**TO)
    shown = running.ended(running.send({"to": ["a", "c", "a"]}))
    assert sorted(delivery["destination"] for delivery in shown["deliveries"]) == ["a", "c"]
    assert running.services["b"].hits == []


def test_what_the_route_says_of_a_destination_holds_for_a_recipient_of_that_name(running: Scene) -> None:
    running.service("a")
    running.service("b")
    shaped = {"service": "a", "path": "in", "transformation": {"type": "drop", "fields": ["to"]}}
    running.route(**TO, destinations=[shaped, {"service": "b", "wireTap": True}])
    running.ended(running.send({"to": ["a"], "n": 1}))
    assert running.got("a") == [{"n": 1}]
    assert running.services["a"].hits[0].path == "/in"
    assert running.got("b") == [{"to": ["a"], "n": 1}], "a wire tap gets its copy whoever else does"


def test_a_dynamic_router_computes_its_one_destination(running: Scene) -> None:
    running.service("eu")
    running.service("world")
    running.route(recipients="${payload.country in ['DE', 'SE'] ? 'eu' : 'world'}")
    running.ended(running.send({"country": "SE"}))
    running.ended(running.send({"country": "US"}))
    assert running.got("eu") == [{"country": "SE"}] and running.got("world") == [{"country": "US"}]


def test_the_clients_grant_binds_recipients_too(running: Scene) -> None:
    running.service("a")
    running.service("b")
    running.route(**TO)
    key = running.api.post("/clients", {"name": "shop", "allowedServices": ["a"]}).json["apiKey"]
    body = {"source": "shop", "messageType": "order.placed", "payload": {"to": ["a", "b"]}}
    sent = running.api.with_key(key).post("/routing/send", body).json
    shown = running.ended(sent["messageId"])
    assert {d["destination"]: d["status"] for d in shown["deliveries"]} == {"a": "delivered", "b": "forbidden"}


def test_names_that_are_none_end_as_a_dead_letter_with_the_reason(running: Scene) -> None:
    running.route(**TO)
    for wrong in ({"to": 7}, {"to": ["no such name!"]}, {}):
        shown = running.ended(running.send(wrong))
        (delivery,) = shown["deliveries"]
        assert (delivery["status"], delivery["errorClass"]) == ("dead", "TransformationError")
        assert "recipients" in delivery["reason"]


def test_a_route_needs_recipients_for_the_strategy_and_destinations_otherwise(scene: Scene) -> None:
    assert scene.faults(strategy="recipient_list") == {"recipients"}
    assert scene.faults(strategy="all", recipients="${payload.to}") == {"recipients"}
    assert scene.faults(destinations=[]) == {"destinations"}
