"""Ordering keys that do not get through: seen, retried, skipped, parked."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from esb_workers.settings import Settings
from esb_workers.store.engine import Database
from tests.support.api import ApiClient
from tests.support.engines import Engines
from tests.support.receiver import Receiver, Reply

Eventually = Callable[..., None]
Json = dict[str, Any]


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as receiver:
        receiver.answer = lambda hit: Reply(400 if hit.json == {"n": 0} else 200)
        yield receiver


@pytest.fixture
def engines(settings: Settings, database: Database) -> Iterator[Engines]:
    with Engines(settings, database) as engines:
        yield engines


def route(api: ApiClient, receiver: Receiver, **destination: Any) -> None:
    service = {"name": "ledger", "version": "1.0.0", "endpoint": receiver.url}
    assert api.post("/services", service).status_code == 201
    body = {"name": "ledger", "pattern": "#", "destinations": [{"service": "ledger", "onDead": "block", **destination}]}
    made = api.post("/routing/routes", body)
    assert made.status_code == 201, made.json


def send(api: ApiClient, n: int, key: str = "account-1") -> str:
    body = {"source": "shop", "messageType": "entry.made", "payload": {"n": n}, "orderingKey": key}
    sent = api.post("/routing/send", body)
    assert sent.status_code == 202
    return str(sent.json["messageId"])


def keys(api: ApiClient, query: str = "") -> list[Json]:
    response = api.get(f"/routing/blocked-keys{query}")
    assert response.status_code == 200, response.json
    return response.json["items"]


def act(api: ApiClient, blocked: Json, what: str) -> Json:
    response = api.post(f"/routing/blocked-keys/{blocked['head']['id']}/{what}")
    assert response.status_code == 200, response.json
    return response.json


def status(api: ApiClient, message: str) -> str:
    return str(api.get(f"/routing/messages/{message}").json["status"])


@pytest.fixture
def blocked(api: ApiClient, receiver: Receiver, engines: Engines, eventually: Eventually) -> Json:
    """A key whose first of three deliveries is dead, beside one that flows."""
    route(api, receiver)
    sent = [send(api, n) for n in range(3)]
    other = send(api, 9, "account-2")
    eventually(lambda: status(api, other) == "delivered" and keys(api, "?state=blocked"))
    eventually(lambda: keys(api)[0]["waiting"] == 2)
    return {"messages": sent, **keys(api)[0]}


def test_a_blocked_key_shows_since_when_by_which_delivery_and_how_many_wait(api: ApiClient, blocked: Json) -> None:
    assert (blocked["key"], blocked["destination"], blocked["route"]) == ("account-1", "ledger", "ledger")
    assert (blocked["state"], blocked["reason"], blocked["waiting"]) == ("blocked", "HttpStatus.400", 2)
    assert blocked["head"]["messageId"] == blocked["messages"][0]
    last = blocked["head"]["lastAttempt"]
    assert (last["statusCode"], last["outcome"]) == (400, "failed")
    assert last["startedAt"] <= blocked["since"]
    assert blocked["since"] >= api.get(f"/routing/messages/{blocked['messages'][0]}").json["createdAt"]
    assert keys(api, "?key=account-2") == keys(api, "?destination=other") == keys(api, "?state=retrying") == []


def test_a_retried_head_lets_its_key_go_on_in_order(
    api: ApiClient, receiver: Receiver, blocked: Json, eventually: Eventually
) -> None:
    receiver.answer = lambda hit: Reply()
    act(api, blocked, "retry")
    eventually(lambda: status(api, blocked["messages"][2]) == "delivered")
    assert [hit.json["n"] for hit in receiver.hits if hit.json["n"] != 9] == [0, 0, 1, 2]
    assert keys(api) == []


def test_a_skipped_head_is_cancelled_and_those_behind_it_go_on(
    api: ApiClient, blocked: Json, eventually: Eventually
) -> None:
    shown = act(api, blocked, "skip")
    assert (shown["status"], shown["errorClass"], len(shown["attempts"])) == ("cancelled", "Skipped", 1)
    eventually(lambda: status(api, blocked["messages"][2]) == "delivered")
    assert api.get("/routing/dead-letters").json["items"] == []
    timeline = api.get(f"/routing/messages/{blocked['messages'][0]}").json["timeline"]
    assert "delivery.skipped" in [entry["type"] for entry in timeline]


def test_a_parked_head_is_a_dead_letter_that_can_be_replayed_later(
    api: ApiClient, receiver: Receiver, blocked: Json, eventually: Eventually
) -> None:
    shown = act(api, blocked, "park")
    assert (shown["status"], shown["errorClass"], len(shown["attempts"])) == ("dead", "HttpStatus.400", 1)
    eventually(lambda: status(api, blocked["messages"][2]) == "delivered")
    (letter,) = api.get("/routing/dead-letters").json["items"]
    assert (letter["id"], letter["lastAttempt"]["statusCode"]) == (blocked["head"]["id"], 400)
    receiver.answer = lambda hit: Reply()
    api.post("/routing/dead-letters/replay", {"filter": {"ids": [letter["id"]]}})
    eventually(lambda: status(api, blocked["messages"][0]) == "delivered")


def test_only_a_head_is_skipped_parked_or_retried(api: ApiClient, blocked: Json) -> None:
    behind = api.get(f"/routing/messages/{blocked['messages'][1]}").json["deliveries"][0]["id"]
    for what in ("retry", "skip", "park"):
        refused = api.post(f"/routing/blocked-keys/{behind}/{what}")
        assert (refused.status_code, refused.json["code"]) == (409, "not_head")
        assert api.post(f"/routing/blocked-keys/{blocked['messages'][0]}/{what}").status_code == 404


def test_a_head_that_is_being_retried_is_listed_and_can_be_skipped_while_its_call_is_under_way(
    api: ApiClient, receiver: Receiver, engines: Engines, eventually: Eventually
) -> None:
    receiver.answer = lambda hit: Reply(503, delay=1.0 if len(receiver.hits) > 1 else 0)
    route(api, receiver, retryPolicy={"schedule": [50, 60_000]})
    first, second = send(api, 1), send(api, 2)
    eventually(lambda: keys(api) and keys(api)[0]["state"] == "in_flight")
    act(api, keys(api)[0], "skip")
    receiver.answer = lambda hit: Reply()
    eventually(lambda: status(api, second) == "delivered")
    assert status(api, first) == "cancelled"


def test_a_form_that_cannot_be_made_blocks_its_key_too(
    api: ApiClient, receiver: Receiver, engines: Engines, eventually: Eventually
) -> None:
    transformation = {"type": "set", "fields": {"n": "${payload.n + (payload.n == 5 ? payload.missing : 0)}"}}
    route(api, receiver, transformation=transformation)
    first, second = send(api, 5), send(api, 6)
    eventually(lambda: keys(api, "?state=blocked"))
    (blocked,) = keys(api)
    assert (blocked["reason"], blocked["head"]["attempts"]) == ("TransformationError", 0)
    assert "missing" in blocked["error"]
    assert status(api, second) == "routed"
    act(api, blocked, "park")
    eventually(lambda: status(api, second) == "delivered")
    assert status(api, first) == "failed"


def test_a_head_that_killed_its_workers_keeps_its_key_blocked(database: Database, api: ApiClient) -> None:
    with database.cursor() as cursor:
        cursor.execute("""
            insert into route (id, name, body) values (gen_random_uuid(), 'r', '{"destinations": [{"service": "a", "onDead": "block"}]}')
            returning id""")
        (route_id,) = cursor.fetchone()
        cursor.execute(
            "insert into job (id, pool, lane_id, route_id, okey, state, losses, message_id, cursor)"
            " select gen_random_uuid(), 2, esb_lane(2::smallint, 'a'), %s, 'k', 'b', 5, gen_random_uuid(), '{\"i\": 0}'",
            (route_id,),
        )
        for _ in range(2):
            cursor.execute("select * from esb_poison(10)")
            assert cursor.fetchall() == []
    assert [(found["state"], found["reason"]) for found in keys(api)] == [("blocked", "worker_lost")]
