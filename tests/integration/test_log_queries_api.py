"""Whose messages a log shows, and which."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from urllib.parse import quote

import pytest

from esb_workers.clock import to_wire
from esb_workers.store import lanes, message_log
from esb_workers.store.engine import Cursor, Database
from esb_workers.store.ids import new_id
from tests.support.api import ApiClient
from tests.support.engines import Engines
from tests.support.messages import Eventually, Json, read, route, send, serve, settled
from tests.support.receiver import Receiver


def test_a_client_sees_its_own_and_nothing_else(api: ApiClient) -> None:
    first = api.with_key(api.post("/clients", {"name": "a", "allowedServices": ["*"]}).json["apiKey"])
    second = api.with_key(api.post("/clients", {"name": "b", "allowedServices": ["*"]}).json["apiKey"])
    mine, theirs, operators = send(first, messageId="m"), send(second, messageId="m"), send(api)
    assert [item["id"] for item in first.get("/routing/logs").json["items"]] == [mine["id"]]
    for other in (theirs, operators):
        assert first.get(f"/routing/messages/{other['id']}").status_code == 404
        assert first.post(f"/routing/messages/{other['id']}/cancel").status_code == 404
    assert first.get("/routing/messages/m").json["id"] == mine["id"]
    assert api.get("/routing/messages/m").json["id"] == theirs["id"]  # the newest: it has none of its own
    assert len(api.get("/routing/logs").json["items"]) == 3
    client_id = read(api, mine)["clientId"]
    assert [item["id"] for item in api.get(f"/routing/logs?clientId={client_id}").json["items"]] == [mine["id"]]
    for method, path in (
        ("POST", f"/routing/messages/{mine['id']}/replay"),
        ("DELETE", f"/routing/messages/{mine['id']}/payload"),
        ("POST", f"/routing/deliveries/{mine['id']}/retry"),
        ("GET", "/routing/dead-letters"),
    ):
        assert first.call(method, path).status_code == 403


def test_the_log_is_filtered_by_all_it_shows(
    api: ApiClient, receiver: Receiver, running: Engines, eventually: Eventually
) -> None:
    serve(api, receiver)
    route(api)
    delivered = settled(api, send(api, correlationId="c-1"), eventually, "delivered")
    lost = settled(
        api,
        send(api, messageType="user.gone", source="web", correlationId="c-2", messageId="own"),
        eventually,
        "unroutable",
    )

    def found(query: str) -> list[str]:
        response = api.get(f"/routing/logs?{query}")
        assert response.status_code == 200, response.json
        return [item["id"] for item in response.json["items"]]

    both = [lost["id"], delivered["id"]]
    assert found("") == both
    assert found("correlationId=c-1") == [delivered["id"]]
    assert found("correlationId=c-1,c-2") == both
    assert found("messageType=user.gone") == found("source=web") == found("messageId=own") == [lost["id"]]
    assert found("status=delivered") == found("destination=crm") == [delivered["id"]]
    assert found("status=unroutable,delivered") == both
    assert found("destination=nobody") == found("clientId=nobody") == found("status=failed") == []
    assert found(f"from={delivered['createdAt']}&to={lost['createdAt']}") == [delivered["id"]]
    assert found(f"from={lost['createdAt']}") == [lost["id"]]
    assert found("from=0001-01-01T00:00:00Z&to=9999-12-31T23:59:59Z") == both
    page = api.get("/routing/logs?limit=1").json
    assert found(f"cursor={page['nextCursor']}") == [delivered["id"]]
    assert page["items"][0]["deliveries"] == []
    for bad in ("status=lost", "from=yesterday", "cursor=x", "limit=0", "colour=red"):
        assert api.get(f"/routing/logs?{bad}").status_code == 422


#: What becomes of messages: statuses of their deliveries, their own end, or nothing yet.
KINDS = [
    ("delivered",), ("dead",), ("cancelled",), ("expired",), ("delivered", "dead"), ("dead", "dead"), "unroutable",
    "expired", "open",
]  # fmt: skip


def store_message(cursor: Cursor, lane: int, message_type: str, kind: str | tuple[str, ...]) -> None:
    message = new_id()
    cursor.execute(
        "insert into message (id, source, type, correlation_id, payload) values (%s, 's', %s, 'c', '1')",
        (message, message_type),
    )
    if kind == "open":
        cursor.execute(
            "insert into job (id, pool, lane_id, message_id) values (%s, 2, %s, %s)", (new_id(), lane, message)
        )
    elif isinstance(kind, str):
        cursor.execute("insert into message_end (message_id, status) values (%s, %s)", (message, kind))
    else:
        for status in kind:
            cursor.execute(
                "insert into delivery (id, message_id, lane_id, status, attempts, created_at)"
                " values (%s, %s, %s, %s, 1, now())",
                (new_id(), message, lane, status),
            )


def listed(api: ApiClient, query: str) -> list[Json]:
    """All pages of a list."""
    found, cursor = [], ""
    while True:
        page = api.get(f"/routing/logs?{query}{cursor}").json
        found += page["items"]
        if page["nextCursor"] is None:
            return found
        cursor = f"&cursor={page['nextCursor']}"


def test_messages_of_a_rare_status_are_found_among_many_page_by_page(
    api: ApiClient, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(message_log, "CHUNK", 3)
    with database.cursor() as cursor:
        lane = lanes.lane_id(cursor, 2, "nobody")
        for number in range(60):
            store_message(cursor, lane, "odd" if number % 2 else "even", KINDS[number * 7 % len(KINDS)])
    everything = listed(api, "limit=200")
    assert len(everything) == 60
    statuses = ["failed", "partially_delivered", "expired", "cancelled", "unroutable", "routed", "delivered"]
    for wanted in (*statuses, "failed,routed"):
        for kind in ("odd", "even"):
            expected = [m["id"] for m in everything if m["status"] in wanted.split(",") and m["messageType"] == kind]
            found = listed(api, f"limit=2&status={wanted}&messageType={kind}")
            assert [m["id"] for m in found] == expected, wanted
    half = everything[30]["createdAt"]
    assert [m["id"] for m in listed(api, f"limit=2&status=failed&from={half}")] == [
        m["id"] for m in everything if m["status"] == "failed" and m["createdAt"] >= half
    ]


def test_a_page_of_large_messages_is_short_and_leads_on(api: ApiClient) -> None:
    for _ in range(11):
        send(api, payload="x" * 1_000_000)
    first = api.get("/routing/logs").json
    rest = api.get(f"/routing/logs?cursor={first['nextCursor']}").json
    assert (len(first["items"]), len(rest["items"]), rest["nextCursor"]) == (9, 2, None)


@pytest.mark.parametrize("name", ["orders/17", "/", "100%/x", "a//b"])
def test_a_senders_own_id_may_be_of_any_visible_characters(api: ApiClient, name: str) -> None:
    send(api, messageId=name, deliverAt=to_wire(datetime.now(UTC) + timedelta(hours=1)))
    path = f"/routing/messages/{quote(name, safe='')}"
    assert api.get(path).json["messageId"] == name
    assert api.post(f"{path}/cancel").json["status"] == "cancelled"
    assert api.delete(f"{path}/payload").status_code == 204
    assert api.post(f"{path}/replay").status_code == 409  # redacted
    assert api.post(f"{path}x/replay").status_code == 404


def test_a_name_nobody_sent_is_unknown(api: ApiClient) -> None:
    for name in ("nothing", "0197f5a0-0000-7000-8000-000000000000", "%20"):
        assert api.get(f"/routing/messages/{name}").status_code == 404
    assert api.post("/routing/deliveries/nothing/retry").status_code == 404
    assert api.post("/routing/deliveries/0197f5a0-0000-7000-8000-000000000000/retry").status_code == 404
