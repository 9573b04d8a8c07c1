"""Dead letters: which there are, and their replay under the same ids."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from esb_workers.settings import Settings
from esb_workers.store.engine import Database
from esb_workers.upkeep import replays
from tests.support.api import ApiClient
from tests.support.engines import Engines
from tests.support.receiver import Receiver, Reply

Eventually = Callable[..., None]
Json = dict[str, Any]


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as receiver:
        yield receiver


@pytest.fixture
def dead(
    api: ApiClient, receiver: Receiver, settings: Settings, database: Database, eventually: Eventually
) -> Iterator[list[Json]]:
    """Four dead letters, newest first: a, b by route `plain` to crm; then order.a and order.b to erp."""
    receiver.answer = lambda hit: Reply(404 if hit.path == "/erp" else 400)
    for name in ("crm", "erp"):
        body = {"name": name, "version": "1.0.0", "endpoint": receiver.url, "delivery": {"path": f"/{name}"}}
        assert api.post("/services", body).status_code == 201
    for name, pattern, destination in (("plain", "*", "crm"), ("Orders", "order.*", "erp@^1.0")):
        made = api.post("/routing/routes", {"name": name, "pattern": pattern, "destinations": [destination]})
        assert made.status_code == 201, made.json
    with Engines(settings, database):
        for message_type in ("a", "b", "order.a", "order.b"):
            body = {"source": "shop", "messageType": message_type, "payload": 1, "messageId": f"m-{message_type}"}
            assert api.post("/routing/send", body).status_code == 202
            eventually(lambda t=message_type: listed(api, messageId=f"m-{t}"))
        yield listed(api)


def listed(api: ApiClient, **query: str) -> list[Json]:
    text = "&".join(f"{name.rstrip('_')}={value}" for name, value in query.items())
    response = api.get(f"/routing/dead-letters?{text}")
    assert response.status_code == 200, response.json
    return response.json["items"]


def types(found: list[Json]) -> list[str]:
    return [letter["messageType"] for letter in found]


def replay(api: ApiClient, status: int = 202, **body: Any) -> Json:
    response = api.post("/routing/dead-letters/replay", body)
    assert response.status_code == status, response.json
    return response.json


def progress(api: ApiClient, replay_id: str) -> Json:
    return api.get(f"/routing/dead-letters/replays/{replay_id}").json


def test_a_dead_letter_says_what_was_given_up_and_why(api: ApiClient, dead: list[Json]) -> None:
    letter = dead[0]
    assert (letter["messageId"], letter["destination"], letter["route"]) == ("m-order.b", "erp@^1.0", "Orders")
    assert (letter["errorClass"], letter["attempts"], letter["clientId"]) == ("HttpStatus.404", 1, None)
    assert letter["lastAttempt"]["statusCode"] == 404
    shown = api.get(f"/routing/messages/{letter['messageId']}").json
    assert shown["deliveries"][0]["id"] == letter["id"]


def test_a_dead_letter_shows_the_original_each_form_and_every_attempt(
    api: ApiClient, receiver: Receiver, settings: Settings, database: Database, eventually: Eventually
) -> None:
    receiver.answer = lambda hit: Reply(503, b"not now")
    assert api.post("/services", {"name": "crm", "version": "1.0.0", "endpoint": receiver.url}).status_code == 201
    destination = {
        "service": "crm", "retryPolicy": {"schedule": [10]},
        "transformation": [{"type": "set", "fields": {"total": "${payload.n * 2}"}}, {"type": "headers", "set": {"Made": "yes"}}],
    }  # fmt: skip
    made = api.post("/routing/routes", {"name": "r", "pattern": "#", "destinations": [destination]})
    assert made.status_code == 201, made.json
    body = {"source": "shop", "messageType": "a", "payload": {"n": 1}, "headers": {"Note": "x"}}
    assert api.post("/routing/send", body).status_code == 202
    with Engines(settings, database):
        eventually(lambda: listed(api))
        letter = api.get(f"/routing/dead-letters/{listed(api)[0]['id']}").json
        assert letter["original"] == {"payload": {"n": 1}, "headers": {"Note": "x"}}
        assert letter["forms"] == [
            {"destination": "crm", "payload": {"n": 1, "total": 2}, "headers": {"Note": "x", "Made": "yes"}}
        ]
        assert [a["statusCode"] for a in letter["delivery"]["attempts"]] == [503, 503]
        receiver.answer = lambda hit: Reply()
        started = replay(api, filter={"ids": [letter["id"]]})
        eventually(lambda: progress(api, started["replayId"])["delivered"] == 1)
    assert api.get(f"/routing/dead-letters/{letter['id']}").status_code == 404
    (shown,) = api.get("/routing/dead-letters/replays").json["items"]
    assert (shown["id"], shown["filter"], shown["delivered"]) == (started["replayId"], {"ids": [letter["id"]]}, 1)
    message = api.get(f"/routing/messages/{letter['messageId']}").json
    replayed = next(entry for entry in message["timeline"] if entry["type"] == "delivery.replayed")
    assert replayed["detail"]["replayId"] == started["replayId"], "a replay is linked to its origin"
    assert len(message["deliveries"][0]["attempts"]) == 3


def test_dead_letters_are_listed_newest_first_and_filtered(api: ApiClient, dead: list[Json]) -> None:
    assert types(dead) == ["order.b", "order.a", "b", "a"]
    assert types(listed(api, destination="crm")) == types(listed(api, route="plain")) == ["b", "a"]
    assert types(listed(api, destination="erp")) == types(listed(api, destination="erp@^1.0")) == ["order.b", "order.a"]
    assert types(listed(api, route="orders")) == types(listed(api, route=dead[0]["routeId"])) == ["order.b", "order.a"]
    assert types(listed(api, errorClass="HttpStatus.404")) == ["order.b", "order.a"]
    assert types(listed(api, messageId="m-a,m-b", errorClass="HttpStatus.400")) == ["b", "a"]
    assert types(listed(api, ids=f"{dead[1]['id']},nonsense")) == ["order.a"]
    assert types(listed(api, from_=dead[1]["createdAt"])) == ["order.b", "order.a"]
    assert types(listed(api, to=dead[2]["createdAt"])) == ["a"]
    assert listed(api, clientId="nobody") == []
    page = api.get("/routing/dead-letters?limit=3").json
    assert types(api.get(f"/routing/dead-letters?limit=3&cursor={page['nextCursor']}").json["items"]) == ["a"]
    assert api.get("/routing/dead-letters?cursor=x").status_code == 422


@pytest.mark.parametrize(
    "body", [{}, {"filter": {}}, {"filter": {"colour": "red"}}, {"filter": {"route": "x"}, "ratePerSecond": 0}]
)
def test_a_replay_must_say_which(api: ApiClient, body: Json) -> None:
    replay(api, 422, **body)


def test_a_dry_run_sends_nothing(api: ApiClient, dead: list[Json], receiver: Receiver) -> None:
    before = len(receiver.hits)
    found = replay(api, 200, filter={"destination": "erp"}, dryRun=True)
    assert (found["matched"], types(found["sample"])) == (2, ["order.b", "order.a"])
    assert len(receiver.hits) == before


def test_a_replay_sends_the_same_deliveries_again(
    api: ApiClient, dead: list[Json], receiver: Receiver, eventually: Eventually
) -> None:
    receiver.answer = lambda hit: Reply(400 if hit.headers["ce-type"] == "b" else 200)
    started = replay(api, filter={"route": "plain"})
    assert started["matched"] == 2
    eventually(lambda: progress(api, started["replayId"])["status"] == "completed")
    done = progress(api, started["replayId"])
    assert (done["matched"], done["sent"], done["delivered"], done["failed"]) == (2, 2, 1, 1)
    assert types(listed(api)) == ["b", "order.b", "order.a"]
    assert api.get("/routing/messages/m-a").json["status"] == "delivered"
    assert max(receiver.effects().values()) == 2
    refused = api.post(f"/routing/dead-letters/replays/{started['replayId']}/cancel")
    assert refused.status_code == 409


def test_a_replay_by_ids_takes_those_alone(
    api: ApiClient, dead: list[Json], receiver: Receiver, eventually: Eventually
) -> None:
    receiver.answer = lambda hit: Reply(200)
    started = replay(api, filter={"ids": [dead[0]["id"], dead[3]["id"], "0197f5a0-0000-7000-8000-000000000000"]})
    assert started["matched"] == 2
    eventually(lambda: types(listed(api)) == ["order.a", "b"])


def test_a_replay_keeps_to_its_rate(
    api: ApiClient, dead: list[Json], receiver: Receiver, eventually: Eventually, database: Database
) -> None:
    receiver.answer = lambda hit: Reply(200)
    before, started_at = len(receiver.hits), time.monotonic()
    started = replay(api, filter={"from": "2020-01-01T00:00:00Z"}, ratePerSecond=4)
    assert started["matched"] == 4

    def through() -> bool:
        replays.tick(database)  # the scheduler's part
        return bool(progress(api, started["replayId"])["status"] == "completed")

    eventually(through)
    moments = [hit.at - started_at for hit in receiver.hits[before:]]
    assert len(moments) == 4
    assert moments[-1] >= 0.7
    assert sum(moment < 0.2 for moment in moments) <= 1


def test_a_cancelled_replay_sends_no_more(
    api: ApiClient, dead: list[Json], receiver: Receiver, eventually: Eventually, database: Database
) -> None:
    receiver.answer = lambda hit: Reply(200)
    started = replay(api, filter={"from": "2020-01-01T00:00:00Z"}, ratePerSecond=0.1)
    path = f"/routing/dead-letters/replays/{started['replayId']}"
    assert api.get(path).json["status"] == "running"
    cancelled = api.post(f"{path}/cancel")
    assert (cancelled.status_code, cancelled.json["status"], cancelled.json["sent"]) == (200, "cancelled", 1)
    replays.tick(database)
    assert api.get(path).json["sent"] == 1
    eventually(lambda: len(listed(api)) == 3)
    assert api.post(f"{path}/cancel").status_code == 409


def test_an_unknown_replay_is_404(api: ApiClient) -> None:
    path = "/routing/dead-letters/replays/0197f5a0-0000-7000-8000-000000000000"
    assert api.get(path).status_code == 404
    assert api.post(f"{path}/cancel").status_code == 404
