"""Sending over HTTP: what is accepted, what a repeat gets, who may, how many, and in which forms."""

from __future__ import annotations

import json
import threading
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from werkzeug.test import TestResponse

from esb_workers.clock import to_wire
from esb_workers.settings import Settings
from esb_workers.store.engine import Database
from tests.support.api import ApiClient
from tests.support.engines import Engines
from tests.support.receiver import Receiver, Reply
from tests.support.sending import MESSAGE, client_of, events, logged, send

# --- one message -----------------------------------------------------------------------------------------


def test_the_specified_message_is_accepted_and_read_back(api: ApiClient) -> None:
    response = api.post("/routing/send", MESSAGE, X_Correlation_ID="abc-123")
    assert response.status_code == 202
    accepted = response.json
    assert accepted["status"] == "accepted"
    assert accepted["correlationId"] == response.headers["X-Correlation-ID"] == "abc-123"
    shown = api.get(f"/routing/messages/{accepted['messageId']}").json
    assert MESSAGE.items() <= shown.items()
    assert (shown["status"], shown["deliveries"], shown["clientId"]) == ("accepted", [], None)
    (line,) = shown["timeline"]
    assert (line["seq"], line["type"], line["at"]) == (1, "message.accepted", shown["createdAt"])
    assert [item["id"] for item in api.get("/routing/logs?correlationId=abc-123").json["items"]] == [accepted["id"]]


@pytest.mark.parametrize("payload", [None, 0, "text", [], {"z": 1, "a": {"ü": [1.5, -0.0, 2**63 - 1, None, True]}}])
def test_a_payload_is_any_json_and_is_kept_equal_and_in_order(api: ApiClient, payload: Any) -> None:
    # Not by `json=`, which sorts keys.
    headers = {"X-API-Key": api._key or "", "Content-Type": "application/json"}
    body = json.dumps(MESSAGE | {"payload": payload})
    accepted = api.app.test_client().post("/routing/send", data=body, headers=headers).json
    raw = api.get(f"/routing/messages/{accepted['id']}").get_data(as_text=True)
    assert json.dumps(json.loads(raw)["payload"]) == json.dumps(payload)


def test_the_correlation_id_of_the_body_wins(api: ApiClient) -> None:
    response = api.post("/routing/send", MESSAGE | {"correlationId": "body"}, X_Correlation_ID="header")
    assert response.json["correlationId"] == response.headers["X-Correlation-ID"] == "body"


@pytest.mark.parametrize(
    ("fields", "path"),
    [
        ({"source": ""}, "source"),
        ({"messageType": "user..created"}, "messageType"),
        ({"messageType": "user.*"}, "messageType"),
        ({"messageType": "a" * 65}, "messageType"),
        ({"headers": {"n": 1}}, "headers.n"),
        ({"correlationId": "has space"}, "correlationId"),
        ({"messageId": "x" * 201}, "messageId"),
        ({"orderingKey": ""}, "orderingKey"),
        ({"priority": 10}, "priority"),
        ({"priority": 1.0}, "priority"),
        ({"deliverAt": "2026-01-01"}, "deliverAt"),
        ({"expiresAt": "2020-01-01T00:00:00Z"}, "expiresAt"),
        ({"replyTo": "no name"}, "replyTo"),
        ({"replyTo": "crm@none"}, "replyTo"),
        ({"colour": "red"}, "colour"),
    ],
)
def test_a_message_that_breaks_a_rule_is_refused_at_the_field(api: ApiClient, fields: Any, path: str) -> None:
    response = api.post("/routing/send", MESSAGE | fields)
    assert response.status_code == 422, response.json
    assert [fault["path"] for fault in response.json["errors"]] == [path]
    assert logged(api) == []


def test_a_payload_must_be_given(api: ApiClient) -> None:
    response = api.post("/routing/send", {"source": "a", "messageType": "b"})
    assert (response.status_code, response.json["errors"][0]["path"]) == (422, "payload")
    assert api.post("/routing/send", []).status_code == 422


def test_times_are_taken_in_any_offset(api: ApiClient) -> None:
    later = datetime.now(UTC) + timedelta(hours=5)
    accepted = send(api, deliverAt=to_wire(later).replace("Z", "+00:00"), expiresAt="2100-01-01T02:00:00+02:00")  # type: ignore[union-attr]
    shown = api.get(f"/routing/messages/{accepted['id']}").json
    assert shown["status"] == "scheduled"
    assert (shown["deliverAt"], shown["expiresAt"]) == (to_wire(later), "2100-01-01T00:00:00.000Z")


# --- the sender's own id ---------------------------------------------------------------------------------


def test_a_message_id_again_with_the_same_body_gets_the_first_answer(api: ApiClient) -> None:
    first = send(api, messageId="m-1")
    assert first["messageId"] == "m-1"
    assert send(api, messageId="m-1") == first
    assert api.get("/routing/messages/m-1").json["id"] == first["id"]
    assert len(logged(api)) == 1


def test_a_message_id_with_another_body_is_a_conflict(api: ApiClient) -> None:
    send(api, messageId="m-1")
    refused = api.post("/routing/send", MESSAGE | {"messageId": "m-1", "payload": 2})
    assert (refused.status_code, refused.json["code"]) == (409, "message_id_conflict")
    assert len(logged(api)) == 1


@pytest.mark.parametrize(
    "field",
    [
        {"source": "other"},
        {"messageType": "order.gone"},
        {"headers": {"x": "other"}},
        {"correlationId": "other"},
        {"orderingKey": "other"},
        {"priority": 9},
        {"deliverAt": "2099-01-01T00:00:00Z"},
        {"expiresAt": "2099-01-01T00:00:00Z"},
        {"replyTo": "other"},
    ],
    ids=str,
)
def test_whatever_differs_makes_it_another_body(api: ApiClient, field: dict[str, Any]) -> None:
    send(api, messageId="m-1", correlationId="c-1")
    refused = api.post("/routing/send", MESSAGE | {"messageId": "m-1", "correlationId": "c-1"} | field)
    assert (refused.status_code, refused.json["code"]) == (409, "message_id_conflict")


def test_a_correlation_id_that_came_in_a_header_is_no_part_of_the_body(api: ApiClient) -> None:
    body = MESSAGE | {"messageId": "m-1"}
    first, again = (api.post("/routing/send", body, X_Correlation_ID=given) for given in ("c-1", "c-2"))
    assert (again.status_code, again.json) == (202, first.json)


def test_message_ids_are_each_clients_own(api: ApiClient) -> None:
    _, client = client_of(api)
    mine, theirs = send(api, messageId="m-1"), send(client, messageId="m-1")
    assert mine["id"] != theirs["id"]
    assert client.get("/routing/messages/m-1").json["id"] == theirs["id"]
    assert api.get("/routing/messages/m-1").json["id"] == mine["id"]


# --- Idempotency-Key -------------------------------------------------------------------------------------


def test_a_repeat_under_a_key_gets_the_first_answer_and_sends_nothing(api: ApiClient) -> None:
    first = api.post("/routing/send", MESSAGE, Idempotency_Key="k-1")
    again = api.post("/routing/send", MESSAGE, Idempotency_Key='"k-1"')
    assert (again.status_code, again.json) == (202, first.json)
    assert again.headers["Idempotency-Replayed"] == "true"
    assert "Idempotency-Replayed" not in first.headers
    assert again.headers["X-Correlation-ID"] == first.headers["X-Correlation-ID"]
    assert len(logged(api)) == 1


def test_a_key_used_for_another_body_is_refused(api: ApiClient) -> None:
    api.post("/routing/send", MESSAGE, Idempotency_Key="k-1")
    refused = api.post("/routing/send", MESSAGE | {"payload": 2}, Idempotency_Key="k-1")
    assert (refused.status_code, refused.json["code"]) == (422, "idempotency_key_reused")
    assert api.post("/routing/send", MESSAGE, Idempotency_Key="").status_code == 400


def test_a_refused_body_is_kept_under_its_key(api: ApiClient) -> None:
    bad = MESSAGE | {"priority": 11}
    first = api.post("/routing/send", bad, Idempotency_Key="k-1")
    again = api.post("/routing/send", bad, Idempotency_Key="k-1")
    assert (first.status_code, again.status_code) == (422, 422)
    assert again.content_type == "application/problem+json"
    assert again.json == first.json
    assert again.headers["Idempotency-Replayed"] == "true"
    assert api.post("/routing/send", MESSAGE, Idempotency_Key="k-1").json["code"] == "idempotency_key_reused"


def test_a_conflict_is_not_kept_under_its_key(api: ApiClient) -> None:
    send(api, messageId="m-1")
    other = MESSAGE | {"messageId": "m-1", "payload": 2}
    assert api.post("/routing/send", other, Idempotency_Key="k-1").status_code == 409
    assert api.post("/routing/send", MESSAGE, Idempotency_Key="k-1").status_code == 202


def test_keys_are_each_clients_and_each_paths_own(api: ApiClient) -> None:
    _, client = client_of(api)
    for caller, path, body in (
        (api, "/routing/send", MESSAGE),
        (client, "/routing/send", MESSAGE),
        (api, "/routing/send/batch", {"messages": [MESSAGE]}),
    ):
        response = caller.post(path, body, Idempotency_Key="k-1")
        assert (response.status_code, "Idempotency-Replayed" in response.headers) == (202, False)


def test_requests_that_race_under_one_key_send_once(api: ApiClient) -> None:
    answers: list[TestResponse] = []

    def call() -> None:
        answers.append(api.with_key(api._key).post("/routing/send", MESSAGE, Idempotency_Key="k-1"))

    threads = [threading.Thread(target=call) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {response.status_code for response in answers} == {202}
    assert len({response.json["id"] for response in answers}) == 1
    assert len(logged(api)) == 1


# --- who may, and how many -------------------------------------------------------------------------------


def test_a_message_type_outside_the_grant_is_refused(api: ApiClient) -> None:
    _, client = client_of(api, allowedMessageTypes=["order.#"])
    refused = client.post("/routing/send", MESSAGE)
    assert (refused.status_code, refused.json["code"]) == (403, "message_type_forbidden")
    send(client, messageType="order.placed")


def test_a_client_that_may_use_no_service_may_not_send(api: ApiClient) -> None:
    made, client = client_of(api, allowedServices=[])
    assert client.post("/routing/send", MESSAGE).json["code"] == "service_forbidden"
    api.patch(f"/clients/{made['id']}", {"allowedServices": ["crm"]})
    send(client)


def test_a_changed_grant_holds_for_the_next_message(api: ApiClient) -> None:
    made, client = client_of(api)
    send(client)
    api.patch(f"/clients/{made['id']}", {"allowedMessageTypes": ["order.#"]})
    assert client.post("/routing/send", MESSAGE).status_code == 403
    api.delete(f"/clients/{made['id']}")
    assert client.post("/routing/send", MESSAGE, Idempotency_Key="k").status_code == 401


def test_a_payload_over_the_clients_limit_is_refused(api: ApiClient) -> None:
    _, client = client_of(api, maxPayloadBytes=10)
    refused = client.post("/routing/send", MESSAGE)
    assert (refused.status_code, refused.json["code"]) == (413, "payload_too_large")
    send(client, payload="12345678")
    assert client.post("/routing/send", MESSAGE | {"payload": "ééééé"}).status_code == 413


def test_a_quota_counts_what_is_accepted_and_nothing_else(api: ApiClient) -> None:
    _, client = client_of(api, rateLimits={"requestsPerDay": 3})
    left = client.post("/routing/send", MESSAGE | {"messageId": "m-1"}).headers
    assert (left["RateLimit-Limit"], left["RateLimit-Remaining"]) == ("3", "2")
    again = client.post("/routing/send", MESSAGE | {"messageId": "m-1"})
    assert again.headers["RateLimit-Remaining"] == "2"
    client.post("/routing/send", MESSAGE | {"messageId": "m-1", "payload": 2})
    client.post("/routing/send", MESSAGE | {"priority": 10})
    client.get("/routing/logs")
    assert client.post("/routing/send", MESSAGE).headers["RateLimit-Remaining"] == "1"
    batch = client.post("/routing/send/batch", {"messages": [MESSAGE, MESSAGE]})
    assert (batch.status_code, batch.json["code"]) == (429, "quota_exceeded")
    assert len(client.get("/routing/logs").json["items"]) == 2
    assert client.post("/routing/send/batch", {"messages": [MESSAGE, {"bad": 1}]}).status_code == 202
    refused = client.post("/routing/send", MESSAGE)
    assert refused.status_code == 429
    assert set(refused.json) == {"type", "title", "status", "detail", "code", "requestId"}
    assert 0 < int(refused.headers["Retry-After"]) <= 86400
    assert refused.headers["RateLimit-Remaining"] == "0"


# --- waiting ---------------------------------------------------------------------------------------------


def test_a_caller_that_waits_gets_the_final_state_with_the_reply(
    api: ApiClient, settings: Settings, database: Database
) -> None:
    with Receiver() as receiver, Engines(settings, database):
        receiver.answer = lambda hit: Reply.json({"welcome": True})
        api.post("/services", {"name": "crm", "version": "1.0.0", "endpoint": receiver.url})
        api.post("/routing/routes", {"name": "all", "pattern": "#", "destinations": ["crm"]})
        response = api.post("/routing/send", MESSAGE, Prefer="respond-async, wait=20", Idempotency_Key="k")
        assert response.status_code == 200, response.json
        assert response.headers["Preference-Applied"] == "wait=20"
        assert response.json["status"] == "delivered"
        (delivery,) = response.json["deliveries"]
        assert json.loads(delivery["attempts"][0]["responseBody"]) == {"welcome": True}
        again = api.post("/routing/send", MESSAGE, Prefer="wait=20", Idempotency_Key="k")
        assert (again.status_code, again.json["id"]) == (200, response.json["id"])
        assert again.headers["Idempotency-Replayed"] == "true"


def test_the_first_answer_goes_to_the_service_in_reply_to(
    api: ApiClient, settings: Settings, database: Database, eventually: Any
) -> None:
    with Receiver() as receiver, Engines(settings, database):
        receiver.answer = lambda hit: Reply.json({"welcome": True})
        for name in ("crm", "asker"):
            body = {"name": name, "version": "1.0.0", "endpoint": receiver.url, "delivery": {"path": f"/{name}"}}
            api.post("/services", body)
        api.post("/routing/routes", {"name": "all", "pattern": "#", "destinations": ["crm"]})
        sent = send(api, replyTo="asker", correlationId="c-1")
        eventually(lambda: [hit.path for hit in receiver.hits] == ["/crm", "/asker"])
        reply = receiver.hits[1]
        assert (reply.headers["ce-type"], reply.headers["x-correlation-id"]) == ("user.created.reply", "c-1")
        assert reply.json == {"welcome": True}
        eventually(lambda: [m["status"] for m in logged(api)] == ["delivered", "delivered"])
        (delivery,) = logged(api)[0]["deliveries"]
        assert (delivery["destination"], delivery["route"]) == ("asker", None)
        assert api.get(f"/routing/messages/{sent['id']}").json["replyTo"] == "asker"


def test_a_caller_whose_time_runs_out_gets_202(api: ApiClient) -> None:
    response = api.post("/routing/send", MESSAGE, Prefer="wait=1")
    assert (response.status_code, response.json["status"]) == (202, "accepted")
    assert api.post("/routing/send", MESSAGE, Prefer="wait=0").status_code == 202


def test_beyond_half_of_the_threads_no_one_waits(api: ApiClient) -> None:
    waiting = api.context.waiting
    places = [waiting.place() for _ in range(4)]
    assert all(place.__enter__() for place in places)
    started = datetime.now(UTC)
    assert api.post("/routing/send", MESSAGE, Prefer="wait=20").status_code == 202
    assert datetime.now(UTC) - started < timedelta(seconds=5)


def test_extensions_of_an_event_mean_what_they_say(api: ApiClient) -> None:
    event = {"specversion": "1.0", "id": "ext-1", "source": "/shop", "type": "order.placed", "data": 1}

    def send_with(**extensions: str) -> TestResponse:
        return events(api, json.dumps(event | extensions).encode(), Content_Type="application/cloudevents+json")

    sent = send_with(partitionkey="k", expirytime="2100-01-01T00:00:00Z")
    assert sent.status_code == 202, sent.json
    message = api.get("/routing/messages/ext-1").json
    assert (message["orderingKey"], message["expiresAt"]) == ("k", "2100-01-01T00:00:00.000Z")
    assert message["headers"]["partitionkey"] == "k"
    for bad in ("2000-01-01T00:00:00Z", "tomorrow"):
        refused = send_with(id=f"ext-{bad}", expirytime=bad)
        assert [fault["path"] for fault in refused.json["errors"]] == ["expirytime"]
