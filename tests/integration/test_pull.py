"""Receivers that fetch their deliveries: leases, acknowledgements, and the rules that hold for every delivery."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from esb_workers.settings import Settings
from esb_workers.store import jobs
from esb_workers.store.engine import Database
from tests.support.api import ApiClient
from tests.support.engines import Engines

Eventually = Callable[..., None]
PULL = "/routing/pull/field"
SERVICE = {"name": "field", "version": "1.0.0", "endpoint": "pull:"}


class Field:
    """A service in the field that pulls, and a bus that routes to it."""

    def __init__(self, api: ApiClient, database: Database, eventually: Eventually) -> None:
        self.api, self.database, self.eventually = api, database, eventually
        self.id = self.create("/services", SERVICE)["id"]
        self.create("/routing/routes", {"name": "r", "pattern": "#", "destinations": ["field"]})

    def create(self, path: str, body: Any) -> Any:
        made = self.api.post(path, body)
        assert made.status_code == 201, made.text
        return made.json

    def send(self, n: Any = 1, **over: Any) -> str:
        body = {"source": "s", "messageType": "reading", "payload": {"n": n}} | over
        return str(self.api.post("/routing/send", body).json["id"])

    def pull(self, **body: Any) -> list[Any]:
        got = self.api.post(PULL, body)
        assert got.status_code == 200, got.text
        return list(got.json["items"])

    def wait_for(self, count: int = 1, **body: Any) -> list[Any]:
        got: list[Any] = []
        self.eventually(lambda: got.extend(self.pull(**body)) or len(got) >= count)
        return got

    def say(self, word: str, *items: Any) -> list[str]:
        answered = self.api.post(f"{PULL}/{word}", {"items": list(items)})
        assert answered.status_code == 200, answered.text
        return [item["outcome"] for item in answered.json["items"]]

    def delivery(self, message_id: str) -> Any:
        return self.api.get(f"/routing/messages/{message_id}").json["deliveries"][0]

    def lapse(self) -> None:
        """Let every lease run out, and be noticed."""
        with self.database.cursor() as cursor:
            cursor.execute("update job set lease_until = now() - interval '1 s' where state = 'f' and worker_id = 0")
            jobs.sweep(cursor, 5.0)


@pytest.fixture
def field(api: ApiClient, settings: Settings, database: Database, eventually: Eventually) -> Iterator[Field]:
    made = Field(api, database, eventually)
    with Engines(settings, database):
        yield made


def test_a_delivery_waits_until_it_is_fetched_and_is_delivered_when_acknowledged(field: Field) -> None:
    message = field.send(1.5, headers={"site": "north"})
    (leased,) = field.wait_for()
    assert leased["payload"] == {"n": 1.5} and leased["headers"] == {"site": "north"}
    assert (leased["messageType"], leased["messageId"], leased["attempt"]) == ("reading", message, 1)
    assert field.delivery(message)["status"] == "in_flight"
    assert field.pull() == []
    assert field.say("ack", {"token": leased["token"], "result": {"stored": True}}) == ["delivered"]
    shown = field.delivery(message)
    assert shown["status"] == "delivered" and shown["id"] == leased["deliveryId"]
    assert shown["attempts"][0]["responseBody"] == '{"stored":true}'
    assert field.say("ack", {"token": leased["token"]}) == ["superseded"]


def test_what_is_not_fetched_yet_is_pending_and_counted(field: Field) -> None:
    message = field.send()
    field.eventually(lambda: field.api.get(PULL).json["ready"] == 1)
    assert field.delivery(message)["status"] == "pending"
    field.pull()
    figures = field.api.get(PULL).json
    assert (figures["ready"], figures["leased"], figures["later"]) == (0, 1, 0)


def test_a_lease_that_runs_out_is_an_attempt_and_the_late_word_is_dropped(field: Field) -> None:
    message = field.send()
    (first,) = field.wait_for()
    field.lapse()
    (second,) = field.wait_for()
    assert second["deliveryId"] == first["deliveryId"] and second["attempt"] == 2
    assert field.say("ack", {"token": first["token"]}) == ["superseded"]
    assert field.say("ack", {"token": second["token"]}) == ["delivered"]
    assert [attempt["outcome"] for attempt in field.delivery(message)["attempts"]] == ["unknown", "ok"]


def test_what_is_given_back_is_tried_again_by_the_policy_until_it_is_dead(field: Field) -> None:
    policy = {"maxRetries": 1, "backoffStrategy": "fixed", "initialDelay": 10}
    field.api.patch(f"/services/{field.id}", {"delivery": {"retryPolicy": policy}})
    message = field.send()
    (leased,) = field.wait_for()
    assert field.say("nack", {"token": leased["token"], "reason": "full"}) == ["retrying"]
    (again,) = field.wait_for()
    assert field.say("nack", {"token": again["token"], "reason": "still full"}) == ["dead"]
    shown = field.delivery(message)
    assert [attempt["error"] for attempt in shown["attempts"]] == ["full", "still full"]
    (letter,) = field.api.get("/routing/dead-letters?errorClass=Nacked").json["items"]
    field.api.post(f"/routing/deliveries/{letter['id']}/retry")
    assert field.wait_for()[0]["deliveryId"] == leased["deliveryId"]


def test_a_receiver_may_name_its_own_delay_or_give_up_for_good(field: Field) -> None:
    first, second = field.send(), field.send()
    one, two = field.wait_for(2)
    said = field.say("nack", {"token": one["token"], "delay": 3_600_000}, {"token": two["token"], "dead": True})
    assert said == ["retrying", "dead"]
    assert field.delivery(first)["status"] == "retrying" and field.delivery(second)["status"] == "dead"
    assert field.pull() == []


def test_a_key_hands_out_one_at_a_time_in_order(field: Field) -> None:
    for n in range(3):
        field.send(n, orderingKey="k")
    seen = []
    for _ in range(3):
        (leased,) = field.wait_for()
        assert field.pull() == []
        seen.append(leased["payload"]["n"])
        assert field.say("ack", {"token": leased["token"]}) == ["delivered"]
    assert seen == [0, 1, 2]


def test_a_lease_can_be_lengthened_while_it_stands(field: Field) -> None:
    field.send()
    (leased,) = field.wait_for(leaseMs=1000)
    body = {"tokens": [leased["token"], leased["token"][:-1] + "9"], "leaseMs": 60_000}
    answered = field.api.post(f"{PULL}/extend", body).json["items"]
    assert [item["outcome"] for item in answered] == ["extended", "superseded"]


def test_a_pull_may_wait_for_work(field: Field) -> None:
    got: list[Any] = []
    waiting = threading.Thread(target=lambda: got.extend(field.pull(wait=10_000)))
    waiting.start()
    field.send()
    waiting.join(10)
    assert len(got) == 1


def test_maintenance_and_limits_hold_for_those_who_pull(field: Field) -> None:
    field.api.patch(f"/services/{field.id}", {"delivery": {"maxConcurrency": 1}})
    message = field.send()
    field.send()
    field.eventually(lambda: field.api.get(PULL).json["ready"] == 2)
    (leased,) = field.pull()
    assert field.pull() == []
    field.say("ack", {"token": leased["token"]})
    field.api.patch(f"/services/{field.id}/status", {"status": "maintenance"})
    assert field.pull() == []
    field.api.patch(f"/services/{field.id}/status", {"status": "active"})
    assert len(field.wait_for()) == 1
    assert field.delivery(message)["status"] == "delivered"


def test_the_answer_of_a_receiver_goes_to_who_is_to_be_replied_to(field: Field) -> None:
    field.create("/services", SERVICE | {"name": "office"})
    field.send(replyTo="office")
    (leased,) = field.wait_for()
    field.say("ack", {"token": leased["token"], "result": {"ok": 1}})
    field.eventually(lambda: field.api.get("/routing/pull/office").json["ready"] == 1)
    (reply,) = field.api.post("/routing/pull/office").json["items"]
    assert (reply["messageType"], reply["payload"]) == ("reading.reply", {"ok": 1})


def test_a_version_that_is_not_there_keeps_its_deliveries(field: Field) -> None:
    field.create("/routing/routes", {"name": "v2", "pattern": "#", "destinations": ["field@^2"], "priority": 1})
    message = field.send()
    field.eventually(lambda: len(field.api.get(f"/routing/messages/{message}").json["deliveries"]) == 2)
    assert len(field.wait_for()) == 1
    shown = field.api.get(f"/routing/messages/{message}").json["deliveries"]
    assert {delivery["reason"] for delivery in shown} >= {"no_matching_version"}


def test_a_key_with_this_scope_may_pull_for_its_service_and_do_nothing_else(api: ApiClient) -> None:
    field = api.post("/services", SERVICE).json
    other = api.post("/services", SERVICE | {"name": "other"}).json
    key = api.post(f"/services/{field['id']}/keys", {"scope": "pull"})
    assert key.json["scope"] == "pull"
    puller = api.with_key(key.json["apiKey"])
    assert puller.post(PULL).status_code == 200
    assert puller.post("/routing/pull/other").status_code == 403
    assert puller.post(f"/services/{field['id']}/heartbeat").status_code == 403
    assert puller.get("/services").status_code == 403
    beat = api.post(f"/services/{other['id']}/keys").json
    assert beat["scope"] == "heartbeat"
    assert api.with_key(beat["apiKey"]).post("/routing/pull/other").status_code == 403


def test_what_makes_no_sense_is_refused_with_its_place(api: ApiClient) -> None:
    api.post("/services", {"name": "web", "version": "1.0.0", "endpoint": "http://127.0.0.1:9"})
    assert api.post("/routing/pull/nobody").status_code == 404
    assert api.post("/routing/pull/web").json["code"] == "not_pull"
    mixed = api.post("/services", SERVICE | {"name": "web"})
    assert (mixed.status_code, mixed.json["code"]) == (409, "pull_is_alone")
    path = api.post("/services", SERVICE | {"delivery": {"path": "/x", "ratePerSecond": 5}})
    assert [e["path"] for e in path.json["errors"]] == ["delivery.path", "delivery.ratePerSecond"]
    made = api.post("/services", SERVICE).json
    shown = api.get(f"/services/{made['id']}").json
    assert api.put(f"/services/{made['id']}", shown).status_code == 200
    for body, place in (
        ({"limit": 0}, "limit"),
        ({"leaseMs": 5}, "leaseMs"),
        ({"wait": 60_000}, "wait"),
        ({"max": 1}, "max"),
    ):
        refused = api.post(PULL, body)
        assert (refused.status_code, refused.json["errors"][0]["path"]) == (422, place)
    bad = api.post(f"{PULL}/ack", {"items": [{"token": "x:1"}]})
    assert bad.json["errors"][0]["path"] == "items[0].token"
    assert api.get(f"{PULL}/ack").status_code == 405
