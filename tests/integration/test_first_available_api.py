"""Destinations of which the first that is available gets the message."""

from __future__ import annotations

from tests.support.api import ApiClient
from tests.support.engines import Engines
from tests.support.messages import Eventually, Json, read, route, send, serve, settled
from tests.support.receiver import Hit, Receiver, Reply


def shift(api: ApiClient, service: Json, status: str) -> None:
    assert api.patch(f"/services/{service['id']}/status", {"status": status}).status_code == 200


def test_first_available_is_the_first_that_is_not_held_decided_anew_per_attempt(
    api: ApiClient, receiver: Receiver, running: Engines, eventually: Eventually
) -> None:
    first, second = (serve(api, receiver, name, delivery={"path": f"/{name}"}) for name in ("first", "second"))
    shift(api, first, "maintenance")
    answers = iter([Reply(503)])

    def failing_once(hit: Hit) -> Reply:
        shift(api, first, "active")  # while the attempt is under way: the next one sees it
        return next(answers, Reply())

    receiver.answer = failing_once
    made = {"type": "set", "fields": {"for": "${messageType}"}}
    route(api, {"service": "first", "transformation": made}, "second@1", strategy="first_available")
    shown = settled(api, send(api), eventually, "delivered")
    assert [hit.path for hit in receiver.hits] == ["/second", "/first"]
    assert ["for" in hit.json for hit in receiver.hits] == [False, True]
    (delivery,) = shown["deliveries"]
    assert (delivery["destination"], delivery["serviceId"]) == ("first", first["id"])
    assert len({hit.key for hit in receiver.hits}) == 1
    assert second["id"]


def test_first_available_is_held_while_all_are_and_goes_on_with_whichever_comes_back(
    api: ApiClient, receiver: Receiver, running: Engines, eventually: Eventually
) -> None:
    first, second = (serve(api, receiver, name, delivery={"path": f"/{name}"}) for name in ("first", "second"))
    shift(api, first, "maintenance")
    shift(api, second, "maintenance")
    route(api, "first", "second", strategy="first_available")
    message = send(api)
    eventually(
        lambda: [(d["status"], d["reason"]) for d in read(api, message)["deliveries"]] == [("held", "maintenance")]
    )
    shift(api, second, "active")
    shown = settled(api, message, eventually, "delivered")
    assert [hit.path for hit in receiver.hits] == ["/second"]
    assert shown["deliveries"][0]["destination"] == "second"


def test_first_available_passes_by_what_the_sender_may_not_use(
    api: ApiClient, receiver: Receiver, running: Engines, eventually: Eventually
) -> None:
    for name in ("first", "second"):
        serve(api, receiver, name, delivery={"path": f"/{name}"})
    route(api, "first", "second", strategy="first_available")
    made = api.post("/clients", {"name": "app", "allowedServices": ["second"]}).json
    message = send(api.with_key(made["apiKey"]))
    settled(api, message, eventually, "delivered")
    assert [hit.path for hit in receiver.hits] == ["/second"]
