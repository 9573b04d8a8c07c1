"""What people do with messages: replay, cancel, redact, retry."""

from __future__ import annotations

import pytest

from esb_workers.store.engine import Database
from tests.support.api import ApiClient
from tests.support.engines import Engines
from tests.support.messages import SLOW, Eventually, names, read, route, send, serve, settled
from tests.support.receiver import Receiver, Reply


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
