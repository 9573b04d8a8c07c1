"""What inbound webhooks refuse, and what is kept of it."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from sqlalchemy import text

from esb_workers.store import retention
from esb_workers.store.engine import Database
from esb_workers.store.ids import new_id
from esb_workers.store.ingress import KEPT, RefusalRow
from esb_workers.webhooks.refusals import DIRECT, MOST
from tests.support.api import ApiClient
from tests.support.webhooks import SECRET, TOKEN, create, faults, github, post


def refusals(api: ApiClient, made: dict[str, Any], query: str = "") -> list[dict[str, Any]]:
    return list(api.get(f"/routing/ingress/{made['id']}/refusals{query}").json["items"])


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
