"""Routes over HTTP: what is taken, what is refused and where the fault is said to lie, and dry runs."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import text

from esb_workers.store.engine import Database
from tests.support.api import ApiClient

SPECIFIED = {
    "name": "user-events",
    "pattern": "user.*",
    "destinations": ["user-service", "analytics-service"],
    "conditions": {"header.eventType": "user.created"},
}
MESSAGE = {
    "source": "api-gateway",
    "messageType": "user.created",
    "payload": {"userId": "123", "email": "user@example.com"},
    "headers": {"eventType": "user.created"},
}


def create(api: ApiClient, **fields: Any) -> dict[str, Any]:
    response = api.post("/routing/routes", SPECIFIED | fields)
    assert response.status_code == 201, response.json
    return response.json


def faults(response: Any) -> dict[str, str]:
    assert response.status_code == 422, response.json
    return {fault["path"]: fault["message"] for fault in response.json["errors"]}


# --- life cycle ------------------------------------------------------------------------------------------


def test_the_specified_route_is_made_and_read_back(api: ApiClient) -> None:
    response = api.post("/routing/routes", SPECIFIED)
    assert response.status_code == 201
    made = response.json
    assert response.headers["Location"] == f"/routing/routes/{made['id']}"
    assert SPECIFIED.items() <= made.items()
    assert (made["priority"], made["enabled"], made["strategy"], made["stopOnMatch"]) == (0, True, "all", False)
    read = api.get(response.headers["Location"])
    assert read.json == made
    assert read.headers["ETag"] == response.headers["ETag"] == '"1"'


def test_what_was_read_can_be_put_back(api: ApiClient) -> None:
    made = create(api, retryPolicy={"maxRetries": 1})
    response = api.put(f"/routing/routes/{made['id']}", made)
    assert response.status_code == 200, response.json
    assert {**response.json, "updatedAt": None} == {**made, "updatedAt": None}
    assert response.headers["ETag"] == '"2"'


def test_a_patch_merges_and_null_resets(api: ApiClient) -> None:
    made = create(api, filter="payload.total > 3", priority=7)
    patched = api.patch(f"/routing/routes/{made['id']}", {"filter": None, "destinations": ["audit"], "enabled": False})
    assert patched.status_code == 200, patched.json
    assert patched.json["filter"] is None
    assert patched.json["destinations"] == ["audit"]
    assert (patched.json["enabled"], patched.json["priority"], patched.json["pattern"]) == (False, 7, "user.*")
    assert api.patch(f"/routing/routes/{made['id']}", {"priority": None}).json["priority"] == 0


def test_a_patch_names_unknown_fields_also_where_they_are_null(api: ApiClient) -> None:
    path = f"/routing/routes/{create(api, transformation={'type': 'pick', 'fields': ['a']}, retryPolicy={})['id']}"
    assert list(faults(api.patch(path, {"colour": None, "priority": 1}))) == ["colour"]
    assert list(faults(api.patch(path, {"retryPolicy": {"colour": None}}))) == ["retryPolicy.colour"]
    reset = api.patch(path, {"transformation": {"type": "template", "fields": None, "output": 1}, "id": "ignored"})
    assert reset.json["transformation"] == {"type": "template", "output": 1}


def test_a_change_holds_only_for_the_version_seen(api: ApiClient) -> None:
    path = f"/routing/routes/{create(api)['id']}"
    assert api.patch(path, {"priority": 1}, If_Match='"1"').status_code == 200
    assert api.patch(path, {"priority": 2}, If_Match='"1"').status_code == 412
    assert api.put(path, SPECIFIED, If_Match='"1"').status_code == 412
    assert api.delete(path, If_Match='"1"').status_code == 412
    assert api.delete(path, If_Match='"2"').status_code == 204


def test_names_are_unique_without_regard_to_case_and_free_again_after_deletion(api: ApiClient) -> None:
    made = create(api)
    refused = api.post("/routing/routes", SPECIFIED | {"name": "User-Events"})
    assert (refused.status_code, refused.json["code"]) == (409, "name_taken")
    other = create(api, name="other")
    assert api.patch(f"/routing/routes/{other['id']}", {"name": "USER-EVENTS"}).status_code == 409
    assert api.delete(f"/routing/routes/{made['id']}").status_code == 204
    assert api.get(f"/routing/routes/{made['id']}").status_code == 404
    assert api.delete(f"/routing/routes/{made['id']}").status_code == 404
    create(api)


def test_lists_are_newest_first_and_filtered(api: ApiClient) -> None:
    names = ["one", "two", "three"]
    for name in names:
        create(api, name=name, enabled=name != "two")
    first = api.get("/routing/routes?limit=2").json
    assert [route["name"] for route in first["items"]] == ["three", "two"]
    rest = api.get(f"/routing/routes?limit=2&cursor={first['nextCursor']}").json
    assert ([route["name"] for route in rest["items"]], rest["nextCursor"]) == (["one"], None)
    assert [route["name"] for route in api.get("/routing/routes?name=ONE,two").json["items"]] == ["two", "one"]
    assert [route["name"] for route in api.get("/routing/routes?enabled=false").json["items"]] == ["two"]
    assert api.get("/routing/routes?colour=red").status_code == 422


def test_every_change_is_audited_and_moves_the_revision(api: ApiClient, database: Database) -> None:
    def revision() -> int:
        with database.read() as connection:
            return int(connection.execute(text("select n from revision where topic = 'routes'")).scalar_one())

    before = revision()
    made = create(api)
    api.patch(f"/routing/routes/{made['id']}", {"priority": 3})
    api.delete(f"/routing/routes/{made['id']}")
    assert revision() == before + 3
    rows = api.get("/system/audit?resource=route").json["items"]
    assert [(row["action"], row["name"]) for row in rows] == [
        (a, "user-events") for a in ("delete", "change", "create")
    ]
    assert rows[1]["detail"] == {"fields": ["priority"]}


def test_routes_are_for_the_operator(api: ApiClient) -> None:
    key = api.post("/clients", {"name": "app", "allowedServices": ["*"]}).json["apiKey"]
    client = api.with_key(key)
    assert client.get("/routing/routes").status_code == 403
    assert client.post("/routing/routes", SPECIFIED).status_code == 403
    assert client.post("/routing/test", {"message": MESSAGE}).status_code == 403


# --- what is refused -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "path", "said"),
    [
        ({"pattern": "user..x"}, "pattern", "position 6"),
        ({"pattern": "us*er"}, "pattern", "position 1"),
        ({"destinations": []}, "destinations", "1 to 100"),
        ({"destinations": ["a@notarange!"]}, "destinations[0]", "version range"),
        ({"destinations": [{"service": "a", "colour": "red"}]}, "destinations[0].colour", "no such field"),
        ({"conditions": {"payload.total": [{"numeric": [">", "a"]}]}}, "conditions.payload.total", ""),
        ({"conditions": {"body.total": [1]}}, "conditions", "body"),
        ({"filter": "payload.total >"}, "filter", ""),
        ({"transformation": {"type": "template", "output": {"a": "${1 +}"}}}, "transformation.output.a", ""),
        ({"transformation": {"type": "enrich"}}, "transformation.service", "is required"),
        ({"strategy": "recipient_list"}, "recipients", "recipient_list"),
        ({"split": {"items": "${payload"}}, "split.items", "never closed"),
        ({"retryPolicy": {"maxRetries": -1}}, "retryPolicy.maxRetries", ""),
        ({"priority": "high"}, "priority", "whole number"),
        ({"colour": "red"}, "colour", "no such field"),
    ],
)
def test_a_fault_is_named_where_it_lies(api: ApiClient, fields: dict[str, Any], path: str, said: str) -> None:
    found = faults(api.post("/routing/routes", SPECIFIED | fields))
    (place,) = found
    assert place.startswith(path), found
    assert said in found[place] or said in place


def test_all_faults_are_named_at_once(api: ApiClient) -> None:
    found = faults(api.post("/routing/routes", {"name": "bad name", "pattern": "", "filter": "(", "x": 1}))
    assert set(found) == {"name", "pattern", "filter", "destinations", "x"}


def test_a_bad_change_leaves_the_route_as_it_was(api: ApiClient) -> None:
    made = create(api)
    faults(api.patch(f"/routing/routes/{made['id']}", {"pattern": "a..b"}))
    assert api.get(f"/routing/routes/{made['id']}").json == made


# --- dry runs --------------------------------------------------------------------------------------------


def test_a_dry_run_says_of_each_route_what_it_would_do_and_why_not(api: ApiClient) -> None:
    create(api)
    create(api, name="other-header", conditions={"header.eventType": "user.deleted"})
    create(api, name="orders", pattern="order.#", conditions=None)
    reshaped = {"type": "template", "output": {"id": "${payload.userId}"}}
    create(api, name="reshaped", conditions=None, transformation=reshaped, destinations=["crm"])
    response = api.post("/routing/test", {"message": MESSAGE})
    assert response.status_code == 200, response.json
    assert response.json["matched"] is True
    verdicts = {verdict["route"]: verdict for verdict in response.json["items"]}
    assert verdicts["user-events"]["destinations"] == ["user-service", "analytics-service"]
    assert verdicts["user-events"]["transformedPayload"] == MESSAGE["payload"]
    assert verdicts["reshaped"]["transformedPayload"] == {"id": "123"}
    assert not verdicts["other-header"]["matched"]
    assert any("eventtype" in reason.lower() for reason in verdicts["other-header"]["reasons"])
    assert any("pattern" in reason for reason in verdicts["orders"]["reasons"])
    assert api.get("/routing/logs").json["items"] == []


def test_a_route_can_be_tried_before_it_is_saved(api: ApiClient) -> None:
    route = {"pattern": "user.#", "destinations": ["a"], "filter": "payload.userId == '123'"}
    assert api.post("/routing/test", {"message": MESSAGE, "route": route}).json["items"][0]["matched"] is True
    found = faults(api.post("/routing/test", {"message": MESSAGE, "route": route | {"filter": "("}}))
    assert list(found) == ["route.filter"]


def test_a_stored_message_can_be_tried(api: ApiClient) -> None:
    create(api)
    api.post("/routing/send", MESSAGE | {"messageId": "m-1"})
    assert api.post("/routing/test", {"messageId": "m-1"}).json["matched"] is True
    assert api.post("/routing/test", {"messageId": "unknown"}).status_code == 404
    faults(api.post("/routing/test", {}))
    faults(api.post("/routing/test", {"messageId": "m-1", "message": MESSAGE}))


def test_conditions_can_be_tried_on_any_event(api: ApiClient) -> None:
    body = {"conditions": {"detail": {"state": ["running"]}}, "event": {"detail": {"state": "running"}}}
    assert api.post("/routing/conditions/test", body).json["matched"] is True
    answer = api.post("/routing/conditions/test", body | {"event": {"detail": {"state": "stopped"}}}).json
    assert answer["matched"] is False
    assert "detail.state" in answer["reasons"][0]
    found = faults(api.post("/routing/conditions/test", {"conditions": {"detail": {"state": "running"}}, "event": {}}))
    assert all(path.startswith("conditions") for path in found)
