"""The client registry over HTTP: grants, keys, rotation, usage."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import text

from esb_api.app import create_app
from esb_workers.clock import to_wire
from esb_workers.settings import Settings
from esb_workers.store.engine import Database
from tests.support.api import ApiClient


def register(api: ApiClient, **fields: Any) -> dict[str, Any]:
    response = api.post("/clients", {"name": "mobile-app"} | fields)
    assert response.status_code == 201, response.json
    return response.json


def test_the_specified_client_gets_its_key_once(api: ApiClient, database: Database) -> None:
    body = {
        "name": "mobile-app",
        "allowedServices": ["user-service", "order-service"],
        "rateLimits": {"requestsPerMinute": 100, "requestsPerHour": 1000},
    }
    response = api.post("/clients", body)
    assert response.status_code == 201
    made = response.json
    assert made["apiKey"].startswith(f"esb_{made['keyId']}_")
    assert made["allowedMessageTypes"] == ["#"]
    assert {name: made[name] for name in body} == body  # nothing beside what was set
    assert response.headers["Cache-Control"] == "no-store"
    shown = api.get(f"/clients/{made['id']}").json
    assert "apiKey" not in shown
    with database.read() as connection:
        stored = str(connection.execute(text("select id, encode(hash, 'escape') from client_key")).one())
    assert made["apiKey"] not in stored


def test_names_are_unique_without_regard_to_case(api: ApiClient) -> None:
    register(api)
    assert api.post("/clients", {"name": "Mobile-App"}).json["code"] == "name_taken"
    other = register(api, name="web")
    assert api.patch(f"/clients/{other['id']}", {"name": "MOBILE-APP"}).status_code == 409
    assert api.patch(f"/clients/{other['id']}", {"name": "WEB"}).status_code == 200


@pytest.mark.parametrize(
    ("fields", "path"),
    [
        ({"name": ""}, "name"),
        ({"allowedServices": "*"}, "allowedServices"),
        ({"allowedServices": ["a b"]}, "allowedServices[0]"),
        ({"allowedMessageTypes": ["a..b"]}, "allowedMessageTypes[0]"),
        ({"rateLimits": {"requestsPerMinute": 0}}, "rateLimits.requestsPerMinute"),
        ({"rateLimits": {"requestsPerWeek": 1}}, "rateLimits.requestsPerWeek"),
        ({"maxPayloadBytes": 1.5}, "maxPayloadBytes"),
        ({"expiresAt": "2026-01-01"}, "expiresAt"),
        ({"expiresAt": 1767225600}, "expiresAt"),
        ({"status": "gone"}, "status"),
        ({"apiKey": "x"}, "apiKey"),
    ],
)
def test_what_is_wrong_is_named(api: ApiClient, fields: dict[str, Any], path: str) -> None:
    response = api.post("/clients", {"name": "mobile-app"} | fields)
    assert response.status_code == 422, response.json
    assert [error["path"] for error in response.json["errors"]] == [path]


def test_a_client_is_changed_listed_and_revoked(api: ApiClient) -> None:
    made = register(api, metadata={"team": "a"}, rateLimits={"requestsPerDay": 5})
    path = f"/clients/{made['id']}"
    patched = api.patch(
        path, {"rateLimits": {"requestsPerDay": None, "requestsPerSecond": 2}, "expiresAt": "2030-01-01T01:00:00+01:00"}
    )
    assert patched.json["rateLimits"] == {"requestsPerSecond": 2}
    assert patched.json["expiresAt"] == "2030-01-01T00:00:00.000Z"
    assert patched.headers["ETag"] == '"2"'
    assert api.put(path, patched.json).json["rateLimits"] == patched.json["rateLimits"]
    assert [item["id"] for item in api.get("/clients?status=active&name=MOBILE-app").json["items"]] == [made["id"]]
    assert api.get("/clients?status=suspended").json["items"] == []
    client = api.with_key(made["apiKey"])
    assert client.get("/clients/self/usage").status_code == 200
    assert api.delete(path, If_Match='"1"').status_code == 412
    assert api.delete(path).status_code == 204
    assert client.get("/clients/self/usage").status_code == 401
    assert api.get(path).status_code == 404


def test_a_client_key_may_only_do_a_clients_things(api: ApiClient) -> None:
    client = api.with_key(register(api, allowedServices=["orders"])["apiKey"])
    for path in ("/services", "/clients", "/metrics", "/system/info", "/system/queues", "/system/audit"):
        assert client.get(path).status_code == 403, path
    assert client.post("/services", {}).status_code == 403
    assert client.get("/services/discover/orders").status_code == 200
    refused = client.get("/services/discover/users")
    assert (refused.status_code, refused.json["code"]) == (403, "service_forbidden")


@pytest.mark.parametrize("key", [None, "", "x", "esb_12345678_" + "a" * 49, "\xfc\xdf" * 10])
def test_a_missing_or_unknown_key_is_401(api: ApiClient, key: str | None) -> None:
    response = api.with_key(key).get("/clients/self/usage")
    assert (response.status_code, response.headers["WWW-Authenticate"]) == (401, 'Bearer realm="esb"')


def test_a_key_may_come_as_a_bearer_token(api: ApiClient) -> None:
    key = register(api)["apiKey"]
    nobody = api.with_key(None)
    assert nobody.get("/clients/self/usage", Authorization=f"Bearer {key}").status_code == 200
    assert nobody.get("/clients/self/usage", Authorization=f"bearer {key}", X_API_Key="").status_code == 200
    assert nobody.get("/clients/self/usage", Authorization=f"Basic {key}").status_code == 401
    assert nobody.get("/clients/self/usage", Authorization=f"Bearer {key}", X_API_Key="another").status_code == 401


def test_suspension_and_expiry_hold_at_once(api: ApiClient) -> None:
    made = register(api)
    path, client = f"/clients/{made['id']}", api.with_key(made["apiKey"])
    api.patch(path, {"status": "suspended"})
    refused = client.get("/clients/self/usage")
    assert (refused.status_code, refused.json["code"]) == (403, "client_suspended")
    api.patch(path, {"status": "active", "expiresAt": to_wire(datetime.now(UTC) - timedelta(seconds=1))})
    refused = client.get("/clients/self/usage")
    assert (refused.status_code, refused.json["code"]) == (401, "key_expired")
    api.patch(path, {"expiresAt": None})
    assert client.get("/clients/self/usage").status_code == 200


def test_keys_rotate_with_overlap(api: ApiClient) -> None:
    made = register(api)
    path, old = f"/clients/{made['id']}/keys", api.with_key(made["apiKey"])
    second = api.post(path, {"expiresPreviousIn": 3_600_000})
    assert second.status_code == 201
    new = api.with_key(second.json["apiKey"])
    assert old.get("/clients/self/usage").status_code == new.get("/clients/self/usage").status_code == 200
    listed = api.get(path).json["items"]
    assert [key["id"] for key in listed] == [second.json["id"], made["keyId"]]
    assert listed[0]["expiresAt"] is None
    assert listed[1]["expiresAt"] is not None
    api.post(path, {"expiresPreviousIn": 0})
    assert old.get("/clients/self/usage").status_code == new.get("/clients/self/usage").status_code == 401
    assert api.delete(f"{path}/{made['keyId']}").status_code == 204
    assert api.delete(f"{path}/{made['keyId']}").status_code == 404


def test_keys_page_newest_first(api: ApiClient) -> None:
    made = register(api)
    path = f"/clients/{made['id']}/keys"
    ids = [made["keyId"], *(api.post(path).json["id"] for _ in range(4))]
    seen, cursor = [], ""
    while cursor is not None:
        page = api.get(f"{path}?limit=2{cursor and f'&cursor={cursor}'}").json
        seen += [key["id"] for key in page["items"]]
        cursor = page["nextCursor"]
    assert seen == ids[::-1]
    assert api.get(f"{path}?cursor=nonsense").status_code == 422


def test_the_answer_of_creation_can_be_put_back(api: ApiClient) -> None:
    made = register(api, rateLimits={"requestsPerHour": 5})
    put = api.put(f"/clients/{made['id']}", made)
    assert put.status_code == 200, put.json
    assert put.json["rateLimits"] == {"requestsPerHour": 5}


def test_without_limits_there_are_none(api: ApiClient) -> None:
    made = register(api, rateLimits={"requestsPerHour": 5})
    assert api.patch(f"/clients/{made['id']}", {"rateLimits": None}).json["rateLimits"] == {}


def test_usage_counts_by_the_hour_and_shows_the_windows(api: ApiClient) -> None:
    made = register(api, rateLimits={"requestsPerHour": 10, "requestsPerDay": 20})
    api.context.rejections.add(made["id"])
    usage = api.get(f"/clients/{made['id']}/usage").json
    assert len(usage["hours"]) == 24
    assert usage["hours"][-1] | {"hour": None} == {"hour": None, "accepted": 0, "rejected": 1, "delivered": 0}
    assert [(w["window"], w["limit"], w["remaining"]) for w in usage["windows"]] == [
        ("requestsPerHour", 10, 10),
        ("requestsPerDay", 20, 20),
    ]
    assert api.with_key(made["apiKey"]).get("/clients/self/usage").json["hours"] == usage["hours"]
    assert api.get("/clients/self/usage").status_code == 404


# --- the front door remembers clients, and is never behind -----------------------------------------------

MESSAGE = {"source": "test", "messageType": "user.created", "payload": {}}


def send(client: ApiClient) -> int:
    return client.post("/routing/send", MESSAGE).status_code


def test_a_change_holds_for_the_next_message_in_every_process(api: ApiClient, settings: Settings) -> None:
    made = register(api, allowedServices=["*"], allowedMessageTypes=["order.*"])
    other = ApiClient(create_app(settings), made["apiKey"])  # a second process of the API
    path = f"/clients/{made['id']}"
    assert send(other) == 403
    for fields, status in (
        ({"allowedMessageTypes": ["user.*"]}, 202),
        ({"status": "suspended"}, 403),
        ({"status": "active"}, 202),
        ({"expiresAt": "2020-01-01T00:00:00Z"}, 401),
        ({"expiresAt": None}, 202),
        ({"maxPayloadBytes": 1}, 413),
        ({"maxPayloadBytes": None}, 202),
        ({"rateLimits": {"requestsPerDay": 1}}, 429),
        ({"rateLimits": None}, 202),
        ({"allowedServices": []}, 403),
    ):
        assert api.patch(path, fields).status_code == 200
        assert send(other) == status, fields
    api.delete(path)
    assert send(other) == 401
    other.context.close()


def test_a_key_that_rotates_out_stops_the_front_door_too(api: ApiClient, settings: Settings) -> None:
    made = register(api, allowedServices=["*"])
    other = ApiClient(create_app(settings), made["apiKey"])
    assert send(other) == 202
    api.delete(f"/clients/{made['id']}/keys/{made['keyId']}")
    assert send(other) == 401
    other.context.close()


def test_limits_show_in_every_answer_and_refusals_are_counted(api: ApiClient) -> None:
    made = register(api, allowedServices=["*"], rateLimits={"requestsPerHour": 2, "requestsPerDay": 100})
    client = api.with_key(made["apiKey"])
    first = client.post("/routing/send", MESSAGE)
    assert first.status_code == 202, first.json
    assert (first.headers["RateLimit-Limit"], first.headers["RateLimit-Remaining"]) == ("2", "1")
    assert client.get("/clients/self/usage").headers["RateLimit-Remaining"] == "1"  # reading takes nothing
    assert client.post("/routing/send", MESSAGE | {"messageType": "a..b"}).status_code == 422
    assert send(client) == 202
    refused = client.post("/routing/send", MESSAGE)
    assert (refused.status_code, refused.headers["RateLimit-Remaining"]) == (429, "0")
    assert 1 <= int(refused.headers["Retry-After"]) == int(refused.headers["RateLimit-Reset"]) <= 3600
    hour = api.get(f"/clients/{made['id']}/usage").json["hours"][-1]
    assert (hour["accepted"], hour["rejected"]) == (2, 2)
    assert "RateLimit-Limit" not in api.get("/clients").headers
