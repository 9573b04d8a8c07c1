"""Inbound webhooks of well-known senders become messages, each once; challenges are answered."""

from __future__ import annotations

import hashlib
import hmac
import json
import time
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import urlencode

import pytest
from standardwebhooks import Webhook

from tests.support.api import ApiClient
from tests.support.webhooks import SECRET, TOKEN, create, faults, github, message, post

PAYLOADS = sorted((Path(__file__).parents[2] / "examples/github-webhooks").glob("*.json"))


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
