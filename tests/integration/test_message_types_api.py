"""The catalogue over HTTP: what is sent of a type is held to its schema, and versions keep their promises."""

from __future__ import annotations

import json
from typing import Any

import pytest
from sqlalchemy import text

from esb_workers.bus import NewMessage
from esb_workers.errors import Invalid
from esb_workers.registry.catalogue import Catalogue
from esb_workers.store.engine import Database, StaleRevision
from tests.support.api import ApiClient

SCHEMA = {
    "type": "object",
    "properties": {"id": {"type": "string", "pattern": "^o-[0-9]+$"}, "total": {"type": "number", "minimum": 0}},
    "required": ["id"],
}
GOOD, BAD = {"id": "o-1", "total": 3.5}, {"id": "x", "total": -1}
FAULTS = [
    {"path": "payload.id", "message": "'x' does not match '^o-[0-9]+$'"},
    {"path": "payload.total", "message": "-1 is less than the minimum of 0"},
]
BASE = "/routing/message-types"


def create(api: ApiClient, **fields: Any) -> dict[str, Any]:
    response = api.post(BASE, {"name": "order.placed", "schema": SCHEMA, "mode": "enforce"} | fields)
    assert response.status_code == 201, response.json
    return response.json


def message(payload: Any, **fields: Any) -> dict[str, Any]:
    return {"source": "shop", "messageType": "order.placed", "payload": payload} | fields


def send(api: ApiClient, payload: Any, **headers: str) -> Any:
    return api.post("/routing/send", message(payload), **headers)


def timeline(api: ApiClient, message_id: str) -> dict[str, Any]:
    return {entry["type"]: entry["detail"] for entry in api.get(f"/routing/messages/{message_id}").json["timeline"]}


# --- what is sent ----------------------------------------------------------------------------------------


def test_enforced_what_does_not_fit_is_refused_with_each_place(api: ApiClient) -> None:
    create(api)
    assert send(api, GOOD).status_code == 202
    refused = send(api, BAD)
    assert (refused.status_code, refused.json["code"], refused.json["errors"]) == (422, "payload_invalid", FAULTS)
    assert send(api, []).json["errors"] == [{"path": "payload", "message": "[] is not of type 'object'"}]
    assert len(api.get("/routing/logs").json["items"]) == 1
    assert api.post("/routing/send", message(BAD, messageType="order.other")).status_code == 202
    assert 'esb_payloads_refused_total{message_type="order.placed"} 2.0' in api.get("/metrics").text


def test_a_batch_takes_what_fits(api: ApiClient) -> None:
    create(api)
    items = api.post("/routing/send/batch", {"messages": [message(GOOD), message(BAD)]}).json["items"]
    assert "messageId" in items[0]
    assert (items[1]["error"]["code"], items[1]["error"]["errors"]) == ("payload_invalid", FAULTS)


def test_an_event_is_judged_by_its_data(api: ApiClient) -> None:
    create(api)
    event = {"specversion": "1.0", "id": "1", "source": "/s", "type": "order.placed", "data": BAD}
    refused = api.call("POST", "/routing/events", event, Content_Type="application/cloudevents+json")
    assert [fault["path"] for fault in refused.json["errors"]] == ["data.id", "data.total"]


def test_an_inbound_webhook_is_judged_by_what_it_is_mapped_to(api: ApiClient) -> None:
    create(api)
    mapping = {"messageType": "order.placed", "payload": "${body.order}"}
    made = api.post("/routing/ingress", {"name": "shop", "verification": {"type": "none"}, "mapping": mapping}).json
    assert api.with_key(None).post("/ingress/shop", {"order": GOOD}).status_code == 202
    refused = api.with_key(None).post("/ingress/shop", {"order": BAD})
    assert (refused.json["code"], refused.json["errors"]) == ("payload_invalid", FAULTS)
    assert api.get(f"/routing/ingress/{made['id']}/refusals").json["items"][0]["code"] == "payload_invalid"


def test_warned_what_does_not_fit_is_accepted_and_noted(api: ApiClient) -> None:
    create(api, mode="warn")
    accepted = send(api, BAD)
    assert accepted.status_code == 202
    lines = timeline(api, accepted.json["id"])
    assert lines["message.schema_warning"] == {"version": 1, "errors": FAULTS}
    assert list(lines) == ["message.accepted", "message.schema_warning"]
    assert "message.schema_warning" not in timeline(api, send(api, GOOD).json["id"])
    batch = api.post("/routing/send/batch", {"messages": [message(BAD), message(GOOD)]}).json["items"]
    assert ["message.schema_warning" in timeline(api, item["id"]) for item in batch] == [True, False]
    assert 'esb_schema_warnings_last_minute{message_type="order.placed"} 2.0' in api.get("/metrics").text


def test_a_warning_goes_with_the_payload_and_a_repeat_makes_none(api: ApiClient, database: Database) -> None:
    create(api, mode="warn")
    for _ in range(2):
        accepted = api.post("/routing/send", message(BAD, messageId="m-1", deliverAt="2099-01-01T00:00:00Z"))
        assert accepted.status_code == 202

    def stored() -> int:
        with database.read() as connection:
            return int(connection.execute(text("select count(*) from message_warning")).scalar_one())

    assert stored() == 1
    api.post("/routing/messages/m-1/cancel")
    assert api.delete("/routing/messages/m-1/payload").status_code == 204
    assert stored() == 0


def test_switched_off_nothing_is_looked_at(api: ApiClient) -> None:
    create(api, mode="off")
    accepted = send(api, BAD)
    assert accepted.status_code == 202
    assert "message.schema_warning" not in timeline(api, accepted.json["id"])


def test_a_refusal_is_kept_under_its_idempotency_key_and_takes_no_quota(api: ApiClient) -> None:
    create(api)
    key = api.post("/clients", {"name": "a", "allowedServices": ["*"], "rateLimits": {"requestsPerDay": 1}}).json[
        "apiKey"
    ]
    client = api.with_key(key)
    assert send(client, BAD, Idempotency_Key="k").status_code == 422
    assert send(client, BAD, Idempotency_Key="k").headers["Idempotency-Replayed"] == "true"
    assert send(client, GOOD).status_code == 202


def test_the_right_to_send_is_asked_first(api: ApiClient) -> None:
    create(api)
    grant = {"name": "a", "allowedServices": ["*"], "allowedMessageTypes": ["other"]}
    refused = send(api.with_key(api.post("/clients", grant).json["apiKey"]), BAD)
    assert (refused.status_code, refused.json["code"]) == (403, "message_type_forbidden")


# --- every process ---------------------------------------------------------------------------------------


def test_a_change_governs_the_next_message_in_every_process(api: ApiClient, settings: Any) -> None:
    from esb_api.app import create_app
    from tests.support.api import OPERATOR_KEY

    other = ApiClient(create_app(settings), OPERATOR_KEY)
    try:
        assert send(other, BAD).status_code == 202
        made = create(api)
        path = f"{BASE}/{made['id']}"
        assert send(other, BAD).status_code == 422
        api.patch(path, {"mode": "warn"})
        assert send(other, BAD).status_code == 202
        api.patch(path, {"mode": "enforce"})
        keyed = send(other, BAD, Idempotency_Key="k")
        assert (keyed.status_code, keyed.headers.get("Idempotency-Replayed")) == (422, None)
        api.delete(path)
        assert send(other, BAD).status_code == 202
    finally:
        other.context.close()


def test_what_was_judged_by_an_older_catalogue_is_not_stored(api: ApiClient, database: Database) -> None:
    book = Catalogue(database)
    before = book.judge("order.placed", BAD)
    create(api)
    new = NewMessage("shop", "order.placed", "c", "{}", "{}", judged=before.revision)
    with pytest.raises(StaleRevision):
        api.context.bus.publish([new], None)
    assert api.get("/routing/logs").json["items"] == []
    assert book.refresh() > before.revision
    with pytest.raises(Invalid):
        book.judge("order.placed", BAD)


# --- life cycle ------------------------------------------------------------------------------------------


def test_a_message_type_is_a_resource_like_others(api: ApiClient) -> None:
    response = api.post(BASE, {"name": "order.placed", "schema": SCHEMA})
    made, path = response.json, response.headers["Location"]
    assert (made["mode"], made["compatibility"], made["version"], made["latestVersion"]) == ("warn", "backward", 1, 1)
    assert (made["activeVersion"], made["schema"], response.headers["ETag"]) == (None, SCHEMA, '"1"')
    assert api.get(path).json == made
    assert api.post(BASE, {"name": "order.placed", "schema": True}).json["code"] == "name_taken"
    assert api.put(path, made, If_Match='"1"').json["version"] == 1
    assert api.patch(path, {"mode": "off"}, If_Match='"1"').status_code == 412
    assert api.patch(path, {"mode": "off", "description": "d"}).json["mode"] == "off"
    assert api.patch(path, {"mode": None}).json["mode"] == "warn"
    create(api, name="other")
    assert [row["name"] for row in api.get(f"{BASE}?mode=enforce,off").json["items"]] == ["other"]
    assert [row["name"] for row in api.get(f"{BASE}?name=order.placed,x").json["items"]] == ["order.placed"]
    assert api.delete(path, If_Match='"1"').status_code == 412
    assert api.delete(path).status_code == 204
    assert api.get(path).status_code == api.get(f"{path}/versions").status_code == 404
    actions = [row["action"] for row in api.get("/system/audit?resource=message_type").json["items"]]
    assert actions == ["delete", "create", "change", "change", "change", "create"]


def test_the_catalogue_is_for_the_operator(api: ApiClient) -> None:
    client = api.with_key(api.post("/clients", {"name": "a", "allowedServices": ["*"]}).json["apiKey"])
    assert client.get(BASE).status_code == 403
    assert client.post(BASE, {"name": "a", "schema": True}).status_code == 403


@pytest.mark.parametrize(
    ("fields", "path"),
    [
        ({"schema": 3}, "schema"),
        ({"schema": {"type": "strong"}}, "schema.type"),
        ({"schema": {"properties": {"a": {"pattern": "(?=x)"}}}}, "schema.properties.a.pattern"),
        ({"schema": {"$ref": "https://example.com/s.json"}}, "schema.$ref"),
        ({"schema": {"$schema": "http://json-schema.org/draft-07/schema#"}}, "schema.$schema"),
        ({"name": "a..b"}, "name"),
        ({"mode": "strict"}, "mode"),
        ({"compatibility": "sideways"}, "compatibility"),
        ({"activeVersion": 2}, "activeVersion"),
        ({"activeVersion": 0}, "activeVersion"),
    ],
)
def test_a_fault_is_named_where_it_lies(api: ApiClient, fields: dict[str, Any], path: str) -> None:
    refused = api.post(BASE, {"name": "order.placed", "schema": SCHEMA} | fields)
    assert refused.status_code == 422, refused.json
    assert [fault["path"] for fault in refused.json["errors"]] == [path]
    assert api.get(BASE).json["items"] == []


# --- versions --------------------------------------------------------------------------------------------


def changed(**properties: Any) -> dict[str, Any]:
    return SCHEMA | {"properties": SCHEMA["properties"] | properties}


def test_a_compatible_version_is_taken_and_counts(api: ApiClient) -> None:
    made = create(api)
    path = f"{BASE}/{made['id']}"
    wider = changed(total={"type": ["number", "null"], "minimum": 0})
    response = api.post(f"{path}/versions", {"schema": wider, "description": "totals may be open"})
    assert (response.status_code, response.headers["Location"]) == (201, f"{path}/versions/2")
    assert api.get(f"{path}/versions/2").json == response.json
    assert (response.json["createdBy"], response.json["description"]) == ("operator", "totals may be open")
    assert send(api, {"id": "o-1", "total": None}).status_code == 202
    assert [row["version"] for row in api.get(f"{path}/versions").json["items"]] == [2, 1]
    page = api.get(f"{path}/versions?limit=1").json
    rest = api.get(f"{path}/versions?limit=1&cursor={page['nextCursor']}").json
    assert ([row["version"] for row in rest["items"]], rest["nextCursor"]) == ([1], None)
    for wrong in ("3", "x", "0", "-1", "999999999"):
        assert api.get(f"{path}/versions/{wrong}").status_code == 404


def test_a_breaking_version_is_refused_with_the_reasons(api: ApiClient) -> None:
    made = create(api)
    path = f"{BASE}/{made['id']}"
    narrower = changed(total={"type": "integer", "minimum": 0}) | {"required": ["id", "total"]}
    refused = api.post(f"{path}/versions", {"schema": narrower})
    assert (refused.status_code, refused.json["code"]) == (409, "schema_incompatible")
    assert refused.json["changes"] == [
        {"path": "total", "message": "is required now", "breaks": ["backward"]},
        {"path": "total", "message": "may no longer be number", "breaks": ["backward"]},
    ]
    assert api.put(path, made | {"schema": narrower}).json["code"] == "schema_incompatible"
    assert api.get(path).json == made
    forced = api.patch(path, {"schema": narrower, "compatibility": "none"})
    assert (forced.status_code, forced.json["version"], forced.json["latestVersion"]) == (200, 2, 2)


def test_compatibility_can_be_tried_out(api: ApiClient) -> None:
    made = create(api)
    path = f"{BASE}/{made['id']}/compatibility"
    wider = changed(total={"type": ["number", "null"], "minimum": 0}, note={"type": "string"})
    told = api.post(path, {"schema": wider}).json
    assert (told["compatible"], told["compatibility"], told["comparedWith"], told["breaking"]) == (
        True,
        "backward",
        1,
        [],
    )
    assert told["changes"] == [
        {"path": "note", "message": "is new", "breaks": []},
        {"path": "total", "message": "may now be null", "breaks": ["forward"]},
    ]
    strict = api.post(path, {"schema": wider, "compatibility": "full"}).json
    assert (strict["compatible"], [change["path"] for change in strict["breaking"]]) == (False, ["total"])
    assert api.post(path, {"schema": {"type": "strong"}}).status_code == 422
    assert len(api.get(f"{BASE}/{made['id']}/versions").json["items"]) == 1


def test_an_older_version_can_be_held_active(api: ApiClient) -> None:
    made = create(api, compatibility="none")
    path = f"{BASE}/{made['id']}"
    api.post(f"{path}/versions", {"schema": {"type": "string"}})
    assert send(api, "text").status_code == 202
    held = api.patch(path, {"activeVersion": 1})
    assert (held.json["version"], held.json["schema"], held.json["latestVersion"]) == (1, SCHEMA, 2)
    assert send(api, "text").status_code == 422
    assert api.patch(path, {"mode": "enforce"}).json["latestVersion"] == 2
    assert api.patch(path, {"activeVersion": 3}).status_code == 422
    assert api.patch(path, {"activeVersion": None}).json["version"] == 2


def test_a_payload_can_be_tried_out(api: ApiClient) -> None:
    made = create(api)
    path = f"{BASE}/{made['id']}/validate"
    assert api.post(path, {"payload": GOOD}).json == {"valid": True, "version": 1, "errors": []}
    assert api.post(path, {"payload": BAD, "version": 1}).json == {"valid": False, "version": 1, "errors": FAULTS}
    assert api.post(path, {"payload": BAD, "version": 2}).status_code == 404
    assert json.dumps(api.get("/routing/logs").json["items"]) == "[]"
