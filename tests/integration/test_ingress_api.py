"""Inbound webhooks over HTTP: real senders' requests, what becomes of them, and what is refused."""

from __future__ import annotations

import hmac
from typing import Any

import pytest
from sqlalchemy import text

from esb_workers.store.engine import Database
from tests.support.api import ApiClient
from tests.support.webhooks import SECRET, TOKEN, create, faults, github, message, post

# --- secrets ---------------------------------------------------------------------------------------------


def test_a_secret_is_made_where_none_is_given_and_shown_once(api: ApiClient, database: Database) -> None:
    response = api.post("/routing/ingress", {"name": "hooks", "verification": {"type": "github"}})
    made = response.json
    assert response.headers["Cache-Control"] == "no-store"
    assert post(api, b"{}", github(b"{}", "push", secret=made["secret"])).status_code == 202
    shown = api.get(f"/routing/ingress/{made['id']}").json
    assert "secret" not in shown
    assert shown["verification"] == {"type": "github"}
    assert shown["heldSecrets"] == [{"until": None}]
    with database.read() as connection:
        everything = str(connection.execute(text("select i::text from ingress i")).all())
        everything += str(connection.execute(text("select a::text from audit a")).all())
    assert made["secret"] not in everything


def test_rotation_leaves_the_old_secret_for_the_overlap(api: ApiClient) -> None:
    made = create(api, verification={"type": "github", "secrets": [SECRET]})
    path = f"/routing/ingress/{made['id']}"
    rotated = api.post(f"{path}/secret/rotate", {"overlap": 60_000}).json
    assert [bool(held["until"]) for held in rotated["heldSecrets"]] == [False, True]
    for secret in (SECRET, rotated["secret"]):
        assert post(api, b"{}", github(b"{}", "push", secret, secret)).status_code == 202
    assert api.get(path).headers["ETag"] == '"1"'
    given = api.post(f"{path}/secret/rotate", {"secret": "one-of-the-senders", "overlap": 0}).json
    assert "secret" not in given
    assert post(api, b"{}", github(b"{}", "push", "x", rotated["secret"])).status_code == 401
    assert post(api, b"{}", github(b"{}", "push", "y", "one-of-the-senders")).status_code == 202
    assert faults(api.post(f"{path}/secret/rotate", {"secret": "short"})) == {
        "secret": "must have 8 to 500 visible ASCII characters"
    }


def test_put_and_patch_keep_the_secrets_unless_the_kind_changes(api: ApiClient) -> None:
    made = create(
        api, verification={"type": "hmac", "header": "X-S", "secrets": [SECRET]}, mapping={"messageType": "a"}
    )
    path = f"/routing/ingress/{made['id']}"
    good = {"X-S": hmac.new(SECRET.encode(), b"{}", "sha256").hexdigest()}
    put = api.put(path, api.get(path).json)
    assert put.status_code == 200, put.json
    assert "secret" not in put.json
    assert post(api, b"{}", good).status_code == 202
    assert api.patch(path, {"verification": {"secrets": [SECRET, "another-secret"]}}).json["heldSecrets"] == [
        {"until": None}, {"until": None},
    ]  # fmt: skip
    found = faults(api.patch(path, {"verification": {"secretEncoding": "hex"}}))
    assert "do not fit" in found["verification.secrets"]
    changed = api.patch(path, {"verification": {"type": "github"}})
    assert changed.json["verification"] == {"type": "github"}
    assert changed.json["secret"] != SECRET
    assert post(api, b"{}", good).status_code == 401


# --- life cycle ------------------------------------------------------------------------------------------


def test_an_ingress_is_a_resource_like_others(api: ApiClient) -> None:
    response = api.post("/routing/ingress", {"name": "hooks", "verification": TOKEN, "mapping": {"messageType": "a"}})
    path = response.headers["Location"]
    assert (response.status_code, response.json["path"], response.headers["ETag"]) == (201, "/ingress/hooks", '"1"')
    assert "secret" not in response.json
    assert (
        api.post("/routing/ingress", {"name": "HOOKS", "verification": TOKEN, "mapping": {"messageType": "a"}}).json[
            "code"
        ]
        == "name_taken"
    )
    patched = api.patch(path, {"enabled": False, "mapping": {"source": "s"}}, If_Match='"1"')
    assert patched.json["mapping"] == {"messageType": "a", "source": "s"}
    assert api.patch(path, {"enabled": None}, If_Match='"1"').status_code == 412
    assert [row["name"] for row in api.get("/routing/ingress?enabled=false&name=Hooks,x").json["items"]] == ["hooks"]
    assert api.get("/routing/ingress?enabled=true").json == {"items": [], "nextCursor": None}
    assert api.patch(path, {"enabled": None, "mapping": {"source": None}}).json["enabled"] is True
    assert api.delete(path, If_Match='"1"').status_code == 412
    assert api.delete(path).status_code == 204
    assert api.get(path).status_code == api.get(f"{path}/refusals").status_code == 404
    rows = api.get("/system/audit?resource=ingress").json["items"]
    assert [row["action"] for row in rows] == ["delete", "change", "change", "create"]
    assert rows[2]["detail"] == {"fields": ["enabled", "mapping"]}


def test_definitions_are_for_the_operator_and_requests_need_no_key(api: ApiClient) -> None:
    made = create(api, verification=TOKEN, mapping={"messageType": "a"})
    client = api.with_key(api.post("/clients", {"name": "app", "allowedServices": ["*"]}).json["apiKey"])
    for call in (client.get("/routing/ingress"), client.get(f"/routing/ingress/{made['id']}/refusals")):
        assert call.status_code == 403
    assert api.with_key(None).get("/routing/ingress").status_code == 401
    assert post(api, b"{}", {"X-Token": SECRET, "X-API-Key": "nonsense"}).status_code == 202


def test_a_change_governs_the_next_request(api: ApiClient) -> None:
    made = create(api, verification=TOKEN, mapping={"messageType": "a"})
    path, headers = f"/routing/ingress/{made['id']}", {"X-Token": SECRET}
    assert message(api, post(api, b"{}", headers))["messageType"] == "a"
    api.patch(path, {"mapping": {"messageType": "b"}})
    assert message(api, post(api, b"{}", headers))["messageType"] == "b"
    api.patch(path, {"enabled": False})
    refused = post(api, b"{}", headers)
    assert (refused.status_code, refused.json["code"]) == (403, "ingress_disabled")
    api.patch(path, {"enabled": True})
    assert post(api, b"{}", headers).status_code == 202
    api.delete(path)
    assert post(api, b"{}", headers).status_code == 404


@pytest.mark.parametrize(
    ("fields", "path"),
    [
        ({}, "verification"),
        ({"verification": {"type": "rot13"}}, "verification"),
        ({"verification": {"type": "none", "secrets": [SECRET]}}, "verification.secrets"),
        ({"verification": {"type": "none"}}, "mapping.messageType"),
        ({"verification": {"type": "stripe"}}, "verification.secrets"),
        ({"verification": {"type": "standard", "secrets": ["whsec_short"]}}, "verification.secrets[0]"),
        ({"verification": {"type": "github", "secrets": []}}, "verification.secrets"),
        ({"verification": {"type": "github", "tolerance": 5}}, "verification.tolerance"),
        ({"verification": {"type": "hmac"}}, "verification.header"),
        ({"verification": {"type": "hmac", "header": "a b"}}, "verification.header"),
        ({"verification": {"type": "hmac", "header": "s", "signed": "x"}}, "verification"),
        ({"verification": {"type": "hmac", "header": "s", "signed": "{timestamp}{body}"}}, "verification"),
        ({"verification": {"type": "token"}}, "verification"),
        ({"verification": {"type": "token", "header": "a", "query": "b"}}, "verification"),
        ({"verification": {"type": "github"}, "mapping": {"messageType": "a.${body."}}, "mapping.messageType"),
        ({"verification": {"type": "github"}, "mapping": {"payload": {"x": "${1 +}"}}}, "mapping.payload.x"),
        ({"verification": {"type": "github"}, "mapping": {"colour": "red"}}, "mapping.colour"),
        ({"verification": {"type": "github"}, "challenge": {"when": "true"}}, "challenge"),
        ({"verification": {"type": "github"}, "challenge": {"query": "c", "tokenQuery": "t"}}, "challenge.token"),
        ({"verification": {"type": "github"}, "challenge": {"when": "1 +", "answer": "x"}}, "challenge.when"),
        ({"verification": {"type": "github"}, "rateLimits": {"requestsPerYear": 1}}, "rateLimits.requestsPerYear"),
        ({"verification": {"type": "github"}, "name": "a/b"}, "name"),
    ],
)  # fmt: skip
def test_a_fault_of_a_definition_is_named_where_it_lies(api: ApiClient, fields: dict[str, Any], path: str) -> None:
    response = api.post("/routing/ingress", {"name": "hooks"} | fields)
    assert list(faults(response)) == [path]
    assert SECRET not in response.get_data(as_text=True)
    assert api.get("/routing/ingress").json["items"] == []
