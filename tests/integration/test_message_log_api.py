"""What became of messages: the log, one message, and what people do to them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import quote

import pytest

from esb_workers.clock import to_wire
from esb_workers.settings import Settings
from esb_workers.store import lanes, message_log
from esb_workers.store.engine import Cursor, Database
from esb_workers.store.ids import new_id
from tests.support.api import ApiClient
from tests.support.engines import Engines
from tests.support.receiver import Hit, Receiver, Reply

Eventually = Callable[..., None]
Json = dict[str, Any]

MESSAGE: Json = {"source": "shop", "messageType": "order.placed", "payload": {"n": 1}, "headers": {"eventType": "x"}}
QUICK = {"maxRetries": 2, "backoffStrategy": "fixed", "initialDelay": 50, "jitter": 0}
NEVER = {"maxRetries": 0}
SLOW = {"maxRetries": 5, "backoffStrategy": "fixed", "initialDelay": 60_000, "maxDelay": 60_000, "jitter": 0}


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as receiver:
        yield receiver


@pytest.fixture
def running(settings: Settings, database: Database) -> Iterator[Engines]:
    with Engines(settings, database) as engines:
        yield engines


def serve(api: ApiClient, receiver: Receiver, name: str = "crm", **fields: Any) -> Json:
    made = api.post("/services", {"name": name, "version": "1.0.0", "endpoint": receiver.url} | fields)
    assert made.status_code == 201, made.json
    return made.json


def route(api: ApiClient, *destinations: Any, **fields: Any) -> Json:
    body = {"name": "orders", "pattern": "order.#", "destinations": list(destinations) or ["crm"], "retryPolicy": QUICK}
    made = api.post("/routing/routes", body | fields)
    assert made.status_code == 201, made.json
    return made.json


def send(api: ApiClient, **fields: Any) -> Json:
    response = api.post("/routing/send", MESSAGE | fields)
    assert response.status_code == 202, response.json
    return response.json


def read(api: ApiClient, message: Json) -> Json:
    response = api.get(f"/routing/messages/{message['id']}")
    assert response.status_code == 200, response.json
    return response.json


def settled(api: ApiClient, message: Json, eventually: Eventually, status: str) -> Json:
    eventually(lambda: read(api, message)["status"] == status)
    return read(api, message)


def names(shown: Json) -> list[str]:
    return [line["type"] for line in shown["timeline"]]


# --- one message -----------------------------------------------------------------------------------------


def test_a_delivered_message_shows_every_attempt_and_all_that_happened(
    api: ApiClient, receiver: Receiver, running: Engines, eventually: Eventually
) -> None:
    receiver.answer = lambda hit: Reply(503, b"later") if len(receiver.hits) == 1 else Reply.json({"ok": 1})
    serve(api, receiver)
    made = route(api)
    shown = settled(api, send(api), eventually, "delivered")
    (delivery,) = shown["deliveries"]
    assert (delivery["route"], delivery["routeId"], delivery["destination"]) == ("orders", made["id"], "crm")
    assert (delivery["status"], delivery["nextAttemptAt"], delivery["errorClass"]) == ("delivered", None, None)
    first, second = delivery["attempts"]
    assert (first["number"], first["statusCode"], first["outcome"], first["responseBody"]) == (
        1,
        503,
        "failed",
        "later",
    )
    assert (second["number"], second["statusCode"], second["outcome"], second["error"]) == (2, 200, "ok", None)
    assert json.loads(second["responseBody"]) == {"ok": 1}
    assert first["startedAt"] < second["startedAt"]
    assert all(attempt["durationMs"] >= 0 for attempt in delivery["attempts"])
    assert names(shown) == [
        "message.accepted", "message.routed", "delivery.attempted", "delivery.attempted", "delivery.delivered",
        "message.delivered",
    ]  # fmt: skip
    assert [line["seq"] for line in shown["timeline"]] == [1, 2, 3, 4, 5, 6]
    assert receiver.hits[0].key == receiver.hits[1].key == delivery["id"]
    assert receiver.hits[0].headers["ce-id"] == shown["messageId"]


def test_a_message_no_route_takes_is_unroutable(api: ApiClient, running: Engines, eventually: Eventually) -> None:
    shown = settled(api, send(api), eventually, "unroutable")
    assert shown["reason"]
    assert names(shown) == ["message.accepted", "message.unroutable"]


def test_one_dead_delivery_makes_a_message_partially_delivered_and_all_dead_make_it_failed(
    api: ApiClient, receiver: Receiver, running: Engines, eventually: Eventually
) -> None:
    receiver.answer = lambda hit: Reply(400 if hit.path == "/bad" else 200)
    serve(api, receiver)
    route(api, "crm", {"service": "crm", "path": "/bad"})
    shown = settled(api, send(api), eventually, "partially_delivered")
    assert sorted(delivery["status"] for delivery in shown["deliveries"]) == ["dead", "delivered"]
    assert {delivery["errorClass"] for delivery in shown["deliveries"]} == {None, "HttpStatus.400"}
    receiver.answer = lambda hit: Reply(400)
    settled(api, send(api), eventually, "failed")


def test_a_failing_delivery_waits_for_its_next_attempt(
    api: ApiClient, receiver: Receiver, running: Engines, eventually: Eventually
) -> None:
    receiver.answer = lambda hit: Reply(500)
    serve(api, receiver)
    route(api, retryPolicy=SLOW)
    message = send(api)
    eventually(lambda: [d["status"] for d in read(api, message)["deliveries"]] == ["retrying"])
    shown = read(api, message)
    assert shown["status"] == "routed"
    assert len(shown["deliveries"][0]["attempts"]) == 1
    assert shown["deliveries"][0]["nextAttemptAt"] > to_wire(datetime.now(UTC) + timedelta(seconds=30))  # type: ignore[operator]


def test_a_delivery_to_a_service_in_maintenance_is_held_and_goes_on_when_it_ends(
    api: ApiClient, receiver: Receiver, running: Engines, eventually: Eventually
) -> None:
    made = serve(api, receiver)
    route(api)
    api.patch(f"/services/{made['id']}/status", {"status": "maintenance"})
    message = send(api)
    eventually(
        lambda: [(d["status"], d["reason"]) for d in read(api, message)["deliveries"]] == [("held", "maintenance")]
    )
    assert read(api, message)["status"] == "routed"
    assert read(api, message)["deliveries"][0]["attempts"] == []
    api.patch(f"/services/{made['id']}/status", {"status": "active"})
    shown = settled(api, message, eventually, "delivered")
    assert [attempt["number"] for attempt in shown["deliveries"][0]["attempts"]] == [1]


def shift(api: ApiClient, service: Json, status: str) -> None:
    assert api.patch(f"/services/{service['id']}/status", {"status": status}).status_code == 200


def test_first_available_is_the_first_that_is_not_held_decided_anew_per_attempt(
    api: ApiClient, receiver: Receiver, running: Engines, eventually: Eventually
) -> None:
    first, second = (serve(api, receiver, name, delivery={"path": f"/{name}"}) for name in ("first", "second"))
    shift(api, first, "maintenance")
    answers = iter([Reply(503)])

    def failing_once(hit: Hit) -> Reply:
        shift(api, first, "active")  # while the attempt is under way: the next one sees it
        return next(answers, Reply())

    receiver.answer = failing_once
    made = {"type": "set", "fields": {"for": "${messageType}"}}
    route(api, {"service": "first", "transformation": made}, "second@1", strategy="first_available")
    shown = settled(api, send(api), eventually, "delivered")
    assert [hit.path for hit in receiver.hits] == ["/second", "/first"]
    assert ["for" in hit.json for hit in receiver.hits] == [False, True]
    (delivery,) = shown["deliveries"]
    assert (delivery["destination"], delivery["serviceId"]) == ("first", first["id"])
    assert len({hit.key for hit in receiver.hits}) == 1
    assert second["id"]


def test_first_available_is_held_while_all_are_and_goes_on_with_whichever_comes_back(
    api: ApiClient, receiver: Receiver, running: Engines, eventually: Eventually
) -> None:
    first, second = (serve(api, receiver, name, delivery={"path": f"/{name}"}) for name in ("first", "second"))
    shift(api, first, "maintenance")
    shift(api, second, "maintenance")
    route(api, "first", "second", strategy="first_available")
    message = send(api)
    eventually(
        lambda: [(d["status"], d["reason"]) for d in read(api, message)["deliveries"]] == [("held", "maintenance")]
    )
    shift(api, second, "active")
    shown = settled(api, message, eventually, "delivered")
    assert [hit.path for hit in receiver.hits] == ["/second"]
    assert shown["deliveries"][0]["destination"] == "second"


def test_first_available_passes_by_what_the_sender_may_not_use(
    api: ApiClient, receiver: Receiver, running: Engines, eventually: Eventually
) -> None:
    for name in ("first", "second"):
        serve(api, receiver, name, delivery={"path": f"/{name}"})
    route(api, "first", "second", strategy="first_available")
    made = api.post("/clients", {"name": "app", "allowedServices": ["second"]}).json
    message = send(api.with_key(made["apiKey"]))
    settled(api, message, eventually, "delivered")
    assert [hit.path for hit in receiver.hits] == ["/second"]


def test_a_delivery_outside_the_grant_is_forbidden_and_the_rest_go_out(
    api: ApiClient, receiver: Receiver, running: Engines, eventually: Eventually
) -> None:
    serve(api, receiver)
    serve(api, receiver, name="vault")
    route(api, "crm", "vault")
    key = api.post("/clients", {"name": "app", "allowedServices": ["crm"]}).json["apiKey"]
    client = api.with_key(key)
    shown = settled(client, send(client), eventually, "partially_delivered")
    assert {d["destination"]: d["status"] for d in shown["deliveries"]} == {"crm": "delivered", "vault": "forbidden"}
    (forbidden,) = [d["id"] for d in shown["deliveries"] if d["status"] == "forbidden"]
    assert api.post(f"/routing/deliveries/{forbidden}/retry").status_code == 409


def test_a_failing_transformation_ends_that_delivery_alone(
    api: ApiClient, receiver: Receiver, running: Engines, eventually: Eventually
) -> None:
    serve(api, receiver)
    broken = {"service": "crm", "transformation": {"type": "template", "output": "${payload.missing}"}}
    route(api, "crm", broken)
    shown = settled(api, send(api), eventually, "partially_delivered")
    (dead,) = [d for d in shown["deliveries"] if d["status"] == "dead"]
    assert (dead["errorClass"], dead["attempts"]) == ("TransformationError", [])
    assert dead["reason"]


def test_what_expires_undelivered_is_expired(
    api: ApiClient, receiver: Receiver, running: Engines, eventually: Eventually, database: Database
) -> None:
    from esb_workers.store import jobs

    route(api)  # to a service nobody registered: held
    message = send(api, expiresAt=to_wire(datetime.now(UTC) + timedelta(seconds=1.5)))
    eventually(lambda: read(api, message)["deliveries"])

    def expired() -> bool:
        with database.cursor() as cursor:  # the scheduler's part
            jobs.expire(cursor)
        return bool(read(api, message)["status"] == "expired")

    eventually(expired)


# --- whose, and which ------------------------------------------------------------------------------------


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


# --- what people do --------------------------------------------------------------------------------------


def test_a_replay_is_a_new_message_through_todays_routes(
    api: ApiClient, receiver: Receiver, running: Engines, eventually: Eventually
) -> None:
    serve(api, receiver)
    first = settled(api, send(api, messageId="m", correlationId="c"), eventually, "unroutable")
    route(api)
    response = api.post(f"/routing/messages/{first['id']}/replay")
    assert response.status_code == 202
    assert (response.json["replayOf"], response.json["correlationId"]) == (first["id"], "c")
    again = settled(api, response.json, eventually, "delivered")
    assert again["id"] == again["messageId"] != first["id"]
    assert (again["replayOf"], again["payload"], again["headers"]) == (first["id"], first["payload"], first["headers"])
    assert names(read(api, first))[-1] == "message.replayed"


def test_a_cancelled_message_goes_no_further(
    api: ApiClient, receiver: Receiver, running: Engines, eventually: Eventually
) -> None:
    receiver.answer = lambda hit: Reply(500)
    serve(api, receiver)
    route(api, retryPolicy=SLOW)
    message = send(api)
    eventually(lambda: [d["status"] for d in read(api, message)["deliveries"]] == ["retrying"])
    response = api.post(f"/routing/messages/{message['id']}/cancel")
    assert (response.status_code, response.json["status"]) == (200, "cancelled")
    assert response.json["deliveries"][0]["status"] == "cancelled"
    refused = api.post(f"/routing/messages/{message['id']}/cancel")
    assert (refused.status_code, refused.json["code"]) == (409, "illegal_transition")


def test_a_scheduled_message_can_be_cancelled_by_its_sender(api: ApiClient) -> None:
    client = api.with_key(api.post("/clients", {"name": "a", "allowedServices": ["*"]}).json["apiKey"])
    message = send(client, deliverAt="2100-01-01T00:00:00Z")
    assert client.post(f"/routing/messages/{message['id']}/cancel").json["status"] == "cancelled"


def test_a_redacted_message_has_lost_its_content_everywhere(
    api: ApiClient, receiver: Receiver, running: Engines, eventually: Eventually, database: Database
) -> None:
    receiver.answer = lambda hit: Reply(400, b"cannot take s3cret")
    serve(api, receiver)
    reshaped = {"type": "template", "output": {"copy": "${payload.x}"}}
    route(api, {"service": "crm", "transformation": reshaped})
    message = send(api, deliverAt="2100-01-01T00:00:00Z")
    assert api.delete(f"/routing/messages/{message['id']}/payload").status_code == 409
    shown = settled(api, send(api, payload={"x": "s3cret"}), eventually, "failed")
    assert api.delete(f"/routing/messages/{shown['id']}/payload").status_code == 204
    assert api.delete(f"/routing/messages/{shown['id']}/payload").status_code == 204
    redacted = read(api, shown)
    assert redacted["payload"] is None
    assert redacted["redactedAt"]
    assert redacted["deliveries"][0]["attempts"][0]["statusCode"] == 400
    assert "message.redacted" in names(redacted)
    for refused in (
        api.post(f"/routing/messages/{shown['id']}/replay"),
        api.post(f"/routing/deliveries/{shown['deliveries'][0]['id']}/retry"),
    ):
        assert refused.status_code == 409
    dry = api.post("/routing/dead-letters/replay", {"filter": {"messageId": shown["id"]}, "dryRun": True})
    assert dry.json == {"matched": 0, "sample": []}
    with database.cursor() as cursor:
        for table in ("message", "form", "delivery", "attempt", "job", "idempotency", "audit"):
            cursor.execute(f"select t::text from {table} t")
            assert "s3cret" not in str(cursor.fetchall())


def test_a_dead_delivery_is_retried_under_its_own_id_with_a_fresh_budget(
    api: ApiClient, receiver: Receiver, running: Engines, eventually: Eventually
) -> None:
    receiver.answer = lambda hit: Reply(500)
    serve(api, receiver)
    route(api)
    shown = settled(api, send(api), eventually, "failed")
    (dead,) = shown["deliveries"]
    assert len(dead["attempts"]) == 3
    receiver.answer = lambda hit: Reply(500) if len(receiver.hits) == 4 else Reply(200)
    response = api.post(f"/routing/deliveries/{dead['id']}/retry")
    assert response.status_code == 200, response.json
    assert response.json["id"] == dead["id"]
    shown = settled(api, shown, eventually, "delivered")
    (again,) = shown["deliveries"]
    assert [attempt["number"] for attempt in again["attempts"]] == [1, 2, 3, 4, 5]
    assert {hit.key for hit in receiver.hits} == {dead["id"]}
    assert "delivery.retried" in names(shown)
    refused = api.post(f"/routing/deliveries/{dead['id']}/retry")
    assert (refused.status_code, refused.json["code"]) == (409, "illegal_transition")


def test_a_waiting_delivery_is_retried_at_once(
    api: ApiClient, receiver: Receiver, running: Engines, eventually: Eventually
) -> None:
    receiver.answer = lambda hit: Reply(500)
    serve(api, receiver)
    route(api, retryPolicy=SLOW)
    message = send(api)
    eventually(lambda: [d["status"] for d in read(api, message)["deliveries"]] == ["retrying"])
    receiver.answer = lambda hit: Reply(200)
    assert api.post(f"/routing/deliveries/{read(api, message)['deliveries'][0]['id']}/retry").status_code == 200
    settled(api, message, eventually, "delivered")


def test_a_retry_by_hand_is_the_probe_of_an_open_circuit(
    api: ApiClient, receiver: Receiver, running: Engines, eventually: Eventually, database: Database
) -> None:
    receiver.answer = lambda hit: Reply(500)
    made = serve(api, receiver)
    route(api, retryPolicy={"maxRetries": 50, "backoffStrategy": "fixed", "initialDelay": 30, "jitter": 0})
    other, message = send(api), send(api)
    eventually(lambda: api.get(f"/services/{made['id']}").json["circuit"] == "open")
    with database.raw_transaction() as cursor:  # a pause longer than the test
        cursor.execute("update service_state set circuit_until = now() + interval '1 hour'")
        cursor.execute("select esb_gate('crm'), esb_changed('services')")
    eventually(lambda: [d["status"] for d in read(api, message)["deliveries"]] == ["held"])
    receiver.answer = lambda hit: Reply(200)
    (delivery,) = read(api, message)["deliveries"]
    assert api.post(f"/routing/deliveries/{delivery['id']}/retry").status_code == 200
    settled(api, message, eventually, "delivered")
    settled(api, other, eventually, "delivered")


@pytest.mark.parametrize("path", ["/services/7", "/routing/routes/x/", "/routing/deliveries/nonsense/retry"])
def test_who_may_not_call_is_told_so_before_a_malformed_id_is(api: ApiClient, path: str) -> None:
    method = "POST" if path.endswith("retry") else "GET"
    path = path.rstrip("/")
    client = api.post("/clients", {"name": "c"}).json["apiKey"]
    assert [api.with_key(key).call(method, path).status_code for key in (None, "wrong", client)] == [401, 401, 403]
    assert api.call(method, path).status_code == 404
    assert api.with_key(None).get("/no/such/path").status_code == 404


def test_a_method_that_the_path_of_an_act_lacks_is_405(api: ApiClient) -> None:
    for act, method in (("replay", "POST"), ("cancel", "POST"), ("payload", "DELETE")):
        answer = api.get(f"/routing/messages/a/7/{act}")
        assert (answer.status_code, answer.headers["Allow"]) == (405, method), act
