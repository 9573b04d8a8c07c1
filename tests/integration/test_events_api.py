"""CloudEvents come in, by the rules to the letter."""

from __future__ import annotations

import base64
import json

import pytest

from tests.support.api import ApiClient
from tests.support.sending import events, send

BINARY = {
    "ce_specversion": "1.0",
    "ce_id": "e-1",
    "ce_source": "/shop/1",
    "ce_type": "order.placed",
    "ce_subject": "o%2017",
    "Content_Type": "application/json",
}

STRUCTURED = {
    "specversion": "1.0",
    "id": "e-2",
    "source": "/shop/1",
    "type": "order.placed",
    "data": {"n": 1},
    "tenant": "t",
}


def test_a_binary_event_is_a_message(api: ApiClient) -> None:
    response = events(api, b'{"n": 1}', **BINARY)
    assert response.status_code == 202, response.json
    assert response.json["messageId"] == "e-1"
    shown = api.get("/routing/messages/e-1").json
    assert (shown["source"], shown["messageType"], shown["payload"]) == ("/shop/1", "order.placed", {"n": 1})
    assert shown["headers"] == {"subject": "o 17"}


def test_a_structured_event_is_a_message(api: ApiClient) -> None:
    response = events(api, json.dumps(STRUCTURED).encode(), Content_Type="application/cloudevents+json")
    assert response.status_code == 202, response.json
    shown = api.get("/routing/messages/e-2").json
    assert (shown["payload"], shown["headers"]) == ({"n": 1}, {"tenant": "t"})


def test_data_that_is_no_json_is_carried_as_base64(api: ApiClient) -> None:
    events(api, b"<a/>", **{**BINARY, "Content_Type": "text/xml"})
    wanted = {"contentType": "text/xml", "base64": base64.b64encode(b"<a/>").decode()}
    assert api.get("/routing/messages/e-1").json["payload"] == wanted


def test_an_event_is_known_by_source_and_id(api: ApiClient) -> None:
    first = events(api, b"1", **BINARY).json
    assert events(api, b"1", **BINARY).json == first
    assert events(api, b"2", **BINARY).status_code == 409
    other = events(api, b"2", **{**BINARY, "ce_source": "/shop/2"})
    assert (other.status_code, other.json["id"] != first["id"]) == (202, True)
    send(api, messageId="e-1")


def test_a_batch_of_events_is_answered_one_by_one(api: ApiClient) -> None:
    batch = [STRUCTURED, STRUCTURED | {"id": "e-3", "type": "bad type"}, {"id": "e-4"}]
    response = events(api, json.dumps(batch).encode(), Content_Type="application/cloudevents-batch+json")
    assert response.status_code == 202, response.json
    items = response.json["items"]
    assert items[0]["messageId"] == "e-2"
    assert items[1]["error"]["errors"][0]["path"] == "type"
    assert items[2]["error"]["status"] == 422


@pytest.mark.parametrize(
    ("headers", "body", "status"),
    [
        ({"ce_id": None}, b"1", 422),
        ({"ce_specversion": "2.0"}, b"1", 422),
        ({"ce_type": "has space"}, b"1", 422),
        ({}, b"{", 400),
        ({"Content_Type": "application/cloudevents+avro"}, b"1", 415),
    ],
)
def test_a_bad_event_is_refused(api: ApiClient, headers: dict[str, str | None], body: bytes, status: int) -> None:
    merged = {name: value for name, value in (BINARY | headers).items() if value is not None}
    assert events(api, body, **merged).status_code == status


def test_an_event_under_an_idempotency_key_is_told_apart_by_its_attributes(api: ApiClient) -> None:
    assert events(api, b"1", **BINARY, Idempotency_Key="k").status_code == 202
    assert events(api, b"1", **BINARY, Idempotency_Key="k").headers["Idempotency-Replayed"] == "true"
    assert events(api, b"1", **{**BINARY, "ce_id": "e-9"}, Idempotency_Key="k").status_code == 422
