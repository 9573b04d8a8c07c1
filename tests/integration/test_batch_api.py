"""Batches: many messages in one request, each with its own outcome."""

from __future__ import annotations

import pytest

from esb_workers.store.engine import Database
from tests.support.api import ApiClient
from tests.support.sending import MESSAGE, client_of, logged, send


def test_a_bad_message_never_sinks_the_others(api: ApiClient) -> None:
    send(api, messageId="taken")
    batch = [
        MESSAGE | {"messageId": "a"},
        {"bad": 1},
        MESSAGE | {"messageId": "taken", "payload": 2},
        5,
        MESSAGE | {"messageId": "a"},
    ]
    response = api.post("/routing/send/batch", {"messages": batch})
    assert response.status_code == 202, response.json
    items = response.json["items"]
    assert [item["index"] for item in items] == [0, 1, 2, 3, 4]
    assert items[0]["messageId"] == items[4]["messageId"] == "a"
    assert items[0]["id"] == items[4]["id"]
    assert items[1]["error"]["status"] == 422
    assert {fault["path"] for fault in items[1]["error"]["errors"]} >= {"source", "bad"}
    assert (items[2]["error"]["status"], items[2]["error"]["code"]) == (409, "message_id_conflict")
    assert items[3]["error"]["code"] == "invalid"
    assert len(logged(api)) == 2


def test_a_batch_of_bad_messages_is_still_202_and_too_many_are_413(api: ApiClient) -> None:
    assert api.post("/routing/send/batch", {"messages": [1, 2]}).status_code == 202
    assert api.post("/routing/send/batch", {"messages": []}).json == {"items": []}
    over = api.post("/routing/send/batch", {"messages": [MESSAGE] * 1001})
    assert (over.status_code, over.json["code"]) == (413, "batch_too_large")
    assert logged(api) == []
    assert api.post("/routing/send/batch", {"messages": 1}).status_code == 422
    assert api.post("/routing/send/batch", {"messages": [], "x": 1}).status_code == 422


def test_a_thousand_messages_fit_one_batch_and_keep_their_order(api: ApiClient, database: Database) -> None:
    items = api.post("/routing/send/batch", {"messages": [MESSAGE | {"payload": n} for n in range(1000)]}).json["items"]
    with database.cursor() as cursor:
        cursor.execute("select id from job where pool = 1 order by seq")
        assert [row[0] for row in cursor.fetchall()] == [item["id"] for item in items]


def test_grants_hold_for_each_message_of_a_batch(api: ApiClient) -> None:
    _, client = client_of(api, allowedMessageTypes=["order.#"])
    items = client.post("/routing/send/batch", {"messages": [MESSAGE, MESSAGE | {"messageType": "order.a"}]}).json[
        "items"
    ]
    assert items[0]["error"]["code"] == "message_type_forbidden"
    assert "messageId" in items[1]


@pytest.mark.parametrize(
    "own",
    [
        {"source": "other"},
        {"messageType": "other.type"},
        {"headers": {"kind": "other"}},
        {"correlationId": "other"},
        {"priority": 9},
    ],
)
def test_what_one_message_of_a_batch_says_of_itself_is_its_own(api: ApiClient, own: dict[str, object]) -> None:
    """What all have in common is stored by another way than what sets them apart."""
    for batch in ([MESSAGE, MESSAGE | own], [MESSAGE | own, MESSAGE], [MESSAGE | own, MESSAGE | own]):
        items = api.post("/routing/send/batch", {"messages": batch}).json["items"]
        for sent, item in zip(batch, items, strict=True):
            kept = api.get(f"/routing/messages/{item['id']}").json
            assert {name: kept[name] for name in sent} == sent
            assert all((kept[name] == value) == (sent is not MESSAGE) for name, value in own.items())
