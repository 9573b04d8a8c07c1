"""Inbound webhooks over HTTP: real senders' requests, what becomes of them, and what is refused."""

from __future__ import annotations

import hashlib
import hmac
import json
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
from sqlalchemy import text
from standardwebhooks import Webhook
from werkzeug.test import TestResponse

from esb_workers.store import retention
from esb_workers.store.engine import Database
from esb_workers.store.ids import new_id
from esb_workers.store.ingress import KEPT, RefusalRow
from esb_workers.webhooks.refusals import DIRECT, MOST
from tests.support.api import ApiClient

SECRET = "a-secret-of-some-length"
PAYLOADS = sorted((Path(__file__).parents[2] / "examples/github-webhooks").glob("*.json"))
TOKEN = {"type": "token", "header": "X-Token", "secrets": [SECRET]}


def create(api: ApiClient, **fields: Any) -> dict[str, Any]:
    response = api.post("/routing/ingress", {"name": "hooks"} | fields)
    assert response.status_code == 201, response.json
    return response.json


def post(
    api: ApiClient,
    body: bytes | str,
    headers: dict[str, str],
    path: str = "/ingress/hooks",
    kind: str = "application/json",
) -> TestResponse:
    """One request as a stranger makes it: without a key."""
    return api.app.test_client(use_cookies=False).post(path, data=body, headers=headers, content_type=kind)


def github(body: bytes, event: str, delivery: str = "d-1", secret: str = SECRET) -> dict[str, str]:
    signature = "sha256=" + hmac.new(secret.encode(), body, "sha256").hexdigest()
    return {"X-Hub-Signature-256": signature, "X-GitHub-Event": event, "X-GitHub-Delivery": delivery}


def message(api: ApiClient, accepted: TestResponse) -> dict[str, Any]:
    assert accepted.status_code == 202, accepted.json
    return api.get(f"/routing/messages/{accepted.json['id']}").json


def faults(response: TestResponse) -> dict[str, str]:
    assert response.status_code == 422, response.json
    return {fault["path"]: fault["message"] for fault in response.json["errors"]}


def refusals(api: ApiClient, made: dict[str, Any], query: str = "") -> list[dict[str, Any]]:
    return list(api.get(f"/routing/ingress/{made['id']}/refusals{query}").json["items"])


# --- senders ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", PAYLOADS, ids=lambda path: path.stem)
def test_real_github_webhooks_become_messages(api: ApiClient, path: Path) -> None:
    create(api, verification={"type": "github", "secrets": [SECRET]})
    raw, event = path.read_bytes(), path.stem.partition("-")[2]
    stored = message(api, post(api, raw, github(raw, event)))
    action = json.loads(raw).get("action")
    assert stored["messageType"] == f"github.{event}" + (f".{action}" if action else "")
    assert (stored["messageId"], stored["source"], stored["clientId"]) == ("d-1", "/ingress/hooks", None)
    assert stored["payload"] == json.loads(raw)


def test_githubs_form_holds_the_same_payload(api: ApiClient) -> None:
    create(api, verification={"type": "github", "secrets": [SECRET]})
    form = urlencode({"payload": json.dumps({"zen": "é & ü", "action": "x"})}).encode()
    stored = message(api, post(api, form, github(form, "ping"), kind="application/x-www-form-urlencoded"))
    assert (stored["messageType"], stored["payload"]["zen"]) == ("github.ping.x", "é & ü")


def test_what_standard_webhooks_signs_is_taken(api: ApiClient) -> None:
    made = create(api, verification={"type": "standard"})
    body, now = '{"type": "invoice.paid", "data": {"n": 1}}', datetime.now(UTC)
    headers = {
        "webhook-id": "msg_7",
        "webhook-timestamp": str(int(now.timestamp())),
        "webhook-signature": Webhook(made["secret"]).sign("msg_7", now, body),
    }
    stored = message(api, post(api, body, headers))
    assert (stored["messageType"], stored["messageId"]) == ("invoice.paid", "msg_7")
    assert post(api, body + " ", headers).status_code == 401


def test_stripes_signature_by_its_documented_formula(api: ApiClient) -> None:
    create(api, verification={"type": "stripe", "secrets": ["whsec_stripes_own_form"]})
    body, moment = b'{"id": "evt_1", "type": "charge.succeeded"}', int(time.time())

    def signed(at: int) -> dict[str, str]:
        digest = hmac.new(b"whsec_stripes_own_form", f"{at}.".encode() + body, hashlib.sha256).hexdigest()
        return {"Stripe-Signature": f"t={at},v1={digest}"}

    stored = message(api, post(api, body, signed(moment)))
    assert (stored["messageType"], stored["messageId"]) == ("stripe.charge.succeeded", "evt_1")
    late = post(api, body, signed(moment - 400))
    assert (late.status_code, late.json["code"]) == (401, "verification_failed")
    assert "too far" in late.json["detail"]


def test_a_mapping_makes_the_whole_message(api: ApiClient) -> None:
    mapping = {
        "messageType": "shop.${body.kind}",
        "payload": {"total": "${body.lines.map(l, l.price)}", "via": "${method} ${query.shop}"},
        "headers": {"x-agent": "${headers['user-agent']}", "none": "${null}"},
        "correlationId": "${body.order}",
        "source": "shop/${query.shop}",
        "orderingKey": "${body.order}",
        "messageId": "${body.kind}-${body.order}",
    }
    create(api, verification=TOKEN, mapping=mapping)
    body = json.dumps({"kind": "paid", "order": 17, "lines": [{"price": 2}, {"price": 3.5}]})
    accepted = post(api, body, {"X-Token": SECRET, "User-Agent": "shop/1"}, "/ingress/HOOKS?shop=north")
    stored = message(api, accepted)
    assert stored["messageType"] == "shop.paid"
    assert stored["payload"] == {"total": [2, 3.5], "via": "POST north"}
    assert (stored["headers"], stored["source"]) == ({"x-agent": "shop/1"}, "shop/north")
    assert (stored["correlationId"], stored["orderingKey"], stored["messageId"]) == ("17", "17", "paid-17")
    assert accepted.headers["X-Correlation-ID"] == "17"


def test_a_mapping_asks_lookup_tables_as_they_are_now(api: ApiClient) -> None:
    table = api.post("/routing/lookup-tables", {"name": "kinds", "entries": {"7": "paid"}}).json
    create(api, verification={"type": "none"}, mapping={"messageType": "order.${lookup('kinds', body.kind)}"})
    assert message(api, post(api, b'{"kind": 7}', {}))["messageType"] == "order.paid"
    api.patch(f"/routing/lookup-tables/{table['id']}", {"entries": {"7": "settled"}})
    assert message(api, post(api, b'{"kind": 7}', {}))["messageType"] == "order.settled"
    told = faults(post(api, b'{"kind": 8}', {}))["mapping.messageType"]
    assert told.startswith("the lookup table 'kinds' has no key '8'")


def test_a_form_is_an_object_by_name(api: ApiClient) -> None:
    create(api, verification={"type": "none"}, mapping={"messageType": "form.sent"})
    stored = message(api, post(api, b"a=1&b=x%26y&a=2&c=", {}, kind="application/x-www-form-urlencoded"))
    assert stored["payload"] == {"a": ["1", "2"], "b": "x&y", "c": ""}


# --- sent again ------------------------------------------------------------------------------------------


def test_a_webhook_that_is_sent_again_is_taken_once(api: ApiClient) -> None:
    create(api, verification={"type": "github", "secrets": [SECRET]})
    first = post(
        api,
        b'{"n": 1}',
        github(b'{"n": 1}', "push"),
    )
    again = post(api, b'{"n": 1, "attempt": 2}', github(b'{"n": 1, "attempt": 2}', "push"))
    assert (first.status_code, again.status_code) == (202, 202)
    assert {**first.json} == {**again.json}
    assert len(api.get("/routing/logs").json["items"]) == 1
    assert post(api, b"{}", github(b"{}", "push", "d-2")).json["id"] != first.json["id"]


def test_the_ids_of_two_ingresses_are_two_things(api: ApiClient) -> None:
    create(api, verification={"type": "github", "secrets": [SECRET]})
    create(api, name="others", verification={"type": "github", "secrets": [SECRET]})
    one = post(api, b"{}", github(b"{}", "push"))
    other = post(api, b"{}", github(b"{}", "push"), "/ingress/others")
    assert one.json["id"] != other.json["id"]


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


# --- what is refused -------------------------------------------------------------------------------------


def test_refused_requests_are_kept_with_the_reason_and_without_secrets(api: ApiClient) -> None:
    made = create(api, verification=TOKEN, mapping={"messageType": "order.${body.kind}"})
    good = {"X-Token": SECRET, "User-Agent": "shop/1", "Cookie": "session=1"}
    assert post(api, b"{}", {"X-Token": "wrong-token-here"}).status_code == 401
    assert post(api, b"{}", {}).status_code == 401
    assert post(api, b"{", good).status_code == 400
    assert post(api, b"{}", good).json["errors"] == [
        {"path": "mapping.messageType", "message": "no such key 'kind' in `body.kind`"}
    ]
    assert post(api, b"<x/>", good, kind="text/xml").status_code == 415
    assert post(api, b'{"kind": "a b"}', good).status_code == 422
    kept = refusals(api, made)
    assert [(row["status"], row["code"]) for row in reversed(kept)] == [
        (401, "verification_failed"), (401, "verification_failed"), (400, "malformed_json"), (422, "mapping_failed"),
        (415, "unsupported_media_type"), (422, "mapping_failed"),
    ]  # fmt: skip
    assert (kept[0]["headers"]["X-Token"], kept[0]["headers"]["Cookie"]) == ("[redacted]", "[redacted]")
    assert (kept[0]["headers"]["User-Agent"], kept[0]["bytes"], kept[0]["method"]) == ("shop/1", 15, "POST")
    assert not any(word in json.dumps(kept) for word in (SECRET, "wrong-token", "session=1"))
    assert len(refusals(api, made, "?code=malformed_json,unsupported_media_type")) == 2
    assert refusals(api, made, "?to=2020-01-01T00:00:00Z") == []
    page = api.get(f"/routing/ingress/{made['id']}/refusals?limit=4").json
    assert len(refusals(api, made, f"?limit=4&cursor={page['nextCursor']}")) == 2
    assert api.get("/routing/logs").json["items"] == []


def test_of_refusals_the_newest_are_kept_and_none_past_retention(api: ApiClient, database: Database) -> None:
    made = create(api, verification=TOKEN, mapping={"messageType": "a"})
    with database.transaction() as connection:
        connection.execute(text(
            "insert into ingress_refusal (id, ingress_id, at, status, code, reason, method, headers)"
            " select lpad(to_hex(i), 32, '0')::uuid, :id, now() - interval '9 days', 401, 'x', 'x', 'POST', '{}'"
            f" from generate_series(1, {KEPT + 20}) i"), {"id": made["id"]})  # fmt: skip
    assert post(api, b"{}", {}).status_code == 401
    assert refusals(api, made, "?limit=1")[0]["code"] == "verification_failed"

    def count() -> int:
        with database.read() as connection:
            return int(connection.execute(text("select count(*) from ingress_refusal")).scalar_one())

    assert count() == KEPT
    with database.cursor() as cursor:
        retention.delete_letters(cursor, 8)
    assert count() == 1


def test_refusals_are_there_at_once_and_a_storm_of_them_is_gathered(api: ApiClient, database: Database) -> None:
    made = create(api, verification=TOKEN, mapping={"messageType": "a"})

    def count() -> int:
        with database.read() as connection:
            return int(connection.execute(text("select count(*) from ingress_refusal")).scalar_one())

    assert post(api, b"{}", {}).status_code == 401
    assert count() == 1
    row = RefusalRow(new_id(), made["id"], datetime.now(UTC), 401, "x", "x", "POST", None, None, 0, {})
    for _ in range(DIRECT + MOST + 20):
        api.context.refusals.add(row._replace(id=new_id()))
    api.context.refusals.write()
    assert DIRECT + MOST <= count() < DIRECT + MOST + 20


def test_bytes_are_signed_as_received_and_verified_before_they_are_read(api: ApiClient) -> None:
    create(api, verification={"type": "github", "secrets": [SECRET]})
    assert post(api, b"{broken", github(b"{broken ", "push")).status_code == 401
    assert post(api, b"{broken", github(b"{broken", "push")).status_code == 400
    spaced = b'{ "a" :1 ,\n"b":2}'
    assert post(api, spaced, github(spaced, "push")).status_code == 202


def test_a_body_over_the_limit_is_413(api: ApiClient) -> None:
    create(api, verification={"type": "none"}, mapping={"messageType": "a"})
    assert post(api, b" " * ((1 << 20) + 1), {}).status_code == 413


@pytest.mark.parametrize(
    ("body", "kind", "status"),
    [
        (b"a=%00", "application/x-www-form-urlencoded", 400),
        (b"a=%ff", "application/x-www-form-urlencoded", 400),
        (b"\xff", "application/x-www-form-urlencoded", 400),
        (b'{"a": "\\u0000"}', "application/json", 400),
        (b'{"a": 1e400}', "application/json", 400),
        (b"", "application/json", 400),
        (b"", "", 202),
        (b"[1]", "application/vnd.x+json; charset=utf-8", 202),
    ],
)
def test_a_body_that_cannot_be_read_is_the_senders_error(api: ApiClient, body: bytes, kind: str, status: int) -> None:
    create(api, verification={"type": "none"}, mapping={"messageType": "a"})
    assert post(api, body, {}, kind=kind).status_code == status


@pytest.mark.parametrize(
    ("mapping", "path"),
    [
        ({"payload": "${body.n + 9223372036854775807}"}, "mapping.payload"),
        ({"payload": "${'\\u0000'}"}, "mapping.payload"),
        ({"messageId": "${body}"}, "mapping.messageId"),
        ({"source": "${query.nul}"}, "mapping.source"),
        ({"orderingKey": "${'k'.replace('k', 'kkkkkkkk')}${'x'}${body.long}"}, "mapping.orderingKey"),
        ({"headers": {"a": "${body}"}}, "mapping.headers"),
        ({"correlationId": "a b"}, "mapping.correlationId"),
    ],
)
def test_what_a_mapping_makes_must_be_a_message(api: ApiClient, mapping: dict[str, Any], path: str) -> None:
    create(api, verification={"type": "none"}, mapping={"messageType": "a"} | mapping)
    assert list(faults(post(api, json.dumps({"n": 1, "long": "x" * 300}), {}))) == [path]


def test_a_quota_holds_for_an_ingress(api: ApiClient) -> None:
    made = create(api, verification={"type": "github", "secrets": [SECRET]}, rateLimits={"requestsPerDay": 2})
    assert post(api, b"{}", github(b"{}", "push", "1", "wrong-secret")).status_code == 401
    assert [post(api, b"{}", github(b"{}", "push", n)).status_code for n in "11123"] == [202, 202, 202, 202, 429]
    refused = post(api, b"{}", github(b"{}", "push", "3"))
    assert (refused.json["code"], int(refused.headers["Retry-After"]) > 0) == ("quota_exceeded", True)
    assert refusals(api, made)[0]["status"] == 429


# --- challenges ------------------------------------------------------------------------------------------


def test_a_get_is_answered_only_where_a_challenge_is_declared(api: ApiClient) -> None:
    made = create(api, verification={"type": "github", "secrets": [SECRET]})
    anyone = api.with_key(None)
    refused = anyone.get("/ingress/hooks?hub.challenge=42")
    assert (refused.status_code, refused.headers["Allow"]) == (405, "POST")
    assert anyone.get("/ingress/nothing").status_code == 404
    challenge = {"query": "hub.challenge", "tokenQuery": "hub.verify_token", "token": "agreed-token"}
    shown = api.patch(f"/routing/ingress/{made['id']}", {"challenge": challenge}).json
    assert shown["challenge"] == {"query": "hub.challenge", "tokenQuery": "hub.verify_token"}
    told = anyone.get("/ingress/hooks?hub.challenge=42&hub.verify_token=agreed-token")
    assert (told.status_code, told.text, told.mimetype) == (200, "42", "text/plain")
    assert anyone.get("/ingress/hooks?hub.challenge=42&hub.verify_token=other").status_code == 401
    assert anyone.get("/ingress/hooks?hub.verify_token=agreed-token").status_code == 422
    assert anyone.get("/ingress/hooks?hub.verify_token=agreed-token&hub.challenge=%0a").status_code == 422
    kept = api.patch(f"/routing/ingress/{made['id']}", {"metadata": {"team": "x"}}).json
    assert kept["challenge"] == shown["challenge"]
    assert anyone.get("/ingress/hooks?hub.challenge=43&hub.verify_token=agreed-token").text == "43"


def test_a_posted_challenge_is_verified_answered_and_no_message(api: ApiClient) -> None:
    challenge = {"when": "body.type == 'url_verification'", "answer": "${body.challenge}"}
    create(api, verification=TOKEN, mapping={"messageType": "slack.event"}, challenge=challenge)
    body = b'{"type": "url_verification", "challenge": "3eZbrw1a"}'
    assert post(api, body, {}).status_code == 401
    told = post(api, body, {"X-Token": SECRET})
    assert (told.status_code, told.text) == (200, "3eZbrw1a")
    assert api.get("/routing/logs").json["items"] == []
    assert post(api, b"{}", {"X-Token": SECRET}).status_code == 202
