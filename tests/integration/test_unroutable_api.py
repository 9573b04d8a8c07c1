"""Messages that no route took: kept, counted, listed, and sent again once a route exists; and routes tried on them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from esb_workers.settings import Settings
from esb_workers.store.engine import Database
from tests.support.api import ApiClient
from tests.support.engines import Engines

Json = dict[str, Any]
Eventually = Callable[..., None]


@pytest.fixture
def stranded(api: ApiClient, settings: Settings, database: Database, eventually: Eventually) -> Iterator[list[str]]:
    """Three messages that no route took, oldest first: two of `order.placed`, one of `user.created`."""
    with Engines(settings, database):
        ids = []
        for n, kind in enumerate(("order.placed", "user.created", "order.placed")):
            body = {"source": "shop", "messageType": kind, "payload": {"n": n}, "messageId": f"m-{n}"}
            ids.append(api.post("/routing/send", body).json["messageId"])
        eventually(lambda: len(listed(api)) == 3)
        yield ids


def listed(api: ApiClient, status: str = "unroutable") -> list[Json]:
    return api.get(f"/routing/logs?status={status}").json["items"]


def counted(api: ApiClient) -> float:
    lines = api.get("/metrics").text.splitlines()
    return next(float(line.split()[1]) for line in lines if line.startswith("esb_unroutable_messages "))


def make_route(api: ApiClient, pattern: str, **fields: Any) -> None:
    body = {"name": "later", "pattern": pattern, "destinations": ["nowhere"]} | fields
    assert api.post("/routing/routes", body).status_code == 201


def test_what_no_route_took_is_sent_again_once_one_does_and_only_once(
    api: ApiClient, stranded: list[str], eventually: Eventually
) -> None:
    assert counted(api) == 3
    assert api.post("/routing/unroutable/replay", {}).json == {"lookedAt": 3, "matched": 0, "more": False, "items": []}
    make_route(api, "order.*", filter="payload.n > 0")
    dry = api.post("/routing/unroutable/replay", {"dryRun": True})
    assert (dry.status_code, dry.json["matched"], dry.json["items"][0]["messageId"]) == (200, 1, None)
    replayed = api.post("/routing/unroutable/replay")
    assert replayed.status_code == 202
    (item,) = replayed.json["items"]
    assert (item["messageType"], item["routes"]) == ("order.placed", ["later"])
    new = api.get(f"/routing/messages/{item['messageId']}").json
    assert (new["replayOf"], new["payload"]) == (item["replayOf"], {"n": 2})
    eventually(lambda: [one["id"] for one in listed(api, "routed")] == [item["messageId"]])
    again = api.post("/routing/unroutable/replay").json
    assert (again["lookedAt"], again["matched"]) == (2, 0)
    assert counted(api) == 2
    assert len(listed(api)) == 3  # what happened stays as it was


def test_a_replay_takes_what_its_filter_says_and_no_more_than_its_limit(api: ApiClient, stranded: list[str]) -> None:
    make_route(api, "#")
    by_type = api.post("/routing/unroutable/replay", {"filter": {"messageType": "user.created"}, "dryRun": True}).json
    assert [item["messageType"] for item in by_type["items"]] == ["user.created"]
    by_id = api.post("/routing/unroutable/replay", {"filter": {"messageId": ["m-0", "m-2"]}, "dryRun": True}).json
    assert by_id["matched"] == 2
    limited = api.post("/routing/unroutable/replay", {"limit": 2, "dryRun": True}).json
    assert (limited["lookedAt"], limited["matched"], limited["more"]) == (2, 2, True)
    nobody = api.post(
        "/routing/unroutable/replay", {"filter": {"clientId": "x", "source": "shop"}, "dryRun": True}
    ).json
    assert nobody["lookedAt"] == 0
    assert api.post("/routing/unroutable/replay", {"filter": {"type": "x"}}).status_code == 422


def test_one_that_was_replayed_alone_is_not_sent_again(api: ApiClient, stranded: list[str]) -> None:
    make_route(api, "#")
    assert api.post(f"/routing/messages/{stranded[0]}/replay").status_code == 202
    assert api.post("/routing/unroutable/replay").json["matched"] == 2


def test_a_draft_route_is_tried_on_the_last_messages(api: ApiClient, stranded: list[str]) -> None:
    route = {"pattern": "order.*", "conditions": {"payload.n": [{"numeric": [">", 0]}]}, "destinations": ["a"]}
    tried = api.post("/routing/test", {"route": route, "last": 3}).json
    assert tried["matched"] is True
    assert [(item["messageId"], item["matched"]) for item in tried["items"]] == [
        ("m-2", True),
        ("m-1", False),
        ("m-0", False),
    ]
    assert "pattern: order.* does not match user.created" in tried["items"][1]["reasons"]
    assert tried["items"][2]["reasons"] == ['conditions: payload.n is 0, wanted [{"numeric": [">", 0]}]']
    assert len(api.post("/routing/test", {"route": route, "last": 1}).json["items"]) == 1


@pytest.mark.parametrize(
    ("body", "path"),
    [
        ({"last": 3}, "route"),
        ({"last": 0, "route": {}}, "last"),
        ({"last": 201, "route": {}}, "last"),
        ({"last": 1, "messageId": "x", "route": {}}, "message"),
        ({"last": 1, "route": {"pattern": "a..b", "destinations": ["a"]}}, "route.pattern"),
    ],
)
def test_a_trial_that_makes_no_sense_is_refused_by_field(api: ApiClient, body: Json, path: str) -> None:
    response = api.post("/routing/test", body)
    assert response.status_code == 422
    assert response.json["errors"][0]["path"] == path
