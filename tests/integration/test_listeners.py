"""Listeners: from a real RabbitMQ and a real Valkey into the bus, acknowledged when it is stored."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import urlsplit

import kombu
import pytest
import redis

from esb_workers.app import make_celery
from esb_workers.listening import tasks
from esb_workers.runtime.ringer import Ringer
from esb_workers.settings import Settings
from esb_workers.store import jobs
from esb_workers.store.engine import Database
from tests.support.api import ApiClient
from tests.support.proxy import Proxy
from tests.support.servers import TcpValkey, through

Eventually = Callable[..., None]
PATH = "/routing/listeners"


class Pool:
    """Processes of the pool `ingress`, in this one."""

    def __init__(self, settings: Settings, database: Database) -> None:
        self._settings = settings.model_copy(update={"sweep_seconds": 0.2, "lease_seconds": 5.0})
        self._database = database
        self._engines: list[tasks.IngressEngine] = []

    def start(self) -> tasks.IngressEngine:
        engine = tasks.make_engine(self._settings, self._database, Ringer(make_celery(self._settings)), slots=8)
        engine.start()
        self._engines.append(engine)
        return engine

    def stop(self) -> None:
        for engine in self._engines:
            engine.stop(5)
            engine.ringer.close()
        self._engines.clear()


@pytest.fixture
def pool(settings: Settings, database: Database, api: ApiClient) -> Iterator[Pool]:
    made = Pool(settings, database)
    yield made
    made.stop()


@pytest.fixture
def queue(rabbitmq_url: str) -> Iterator[kombu.Queue]:
    """An empty queue of RabbitMQ."""
    with kombu.Connection(rabbitmq_url) as connection:
        made = kombu.Queue("inbox")(connection.default_channel)
        made.delete()
        made.declare()
        yield made


@pytest.fixture(scope="module")
def valkey(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    server = TcpValkey(tmp_path_factory.mktemp("lists"))
    server.start()
    yield server.url
    server.stop()


def put(queue: kombu.Queue, body: Any, **properties: Any) -> None:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    headers = properties.pop("headers", None)
    given = {"content_type": "application/json"} | properties
    kombu.Producer(queue.channel).publish(
        raw, routing_key=queue.name, content_encoding="binary", headers=headers, **given
    )


def listen(api: ApiClient, url: str, **body: Any) -> str:
    made = api.post(PATH, {"name": "inbox", "url": url} | body)
    assert made.status_code == 201, made.text
    return str(made.json["id"])


def status(api: ApiClient, listener: str) -> Any:
    return api.get(f"{PATH}/{listener}").json["status"]


def messages(api: ApiClient) -> list[Any]:
    return list(reversed(api.get("/routing/logs").json["items"]))


def depth(queue: kombu.Queue) -> int:
    return int(queue.queue_declare(passive=True).message_count)


def test_messages_of_a_queue_become_messages_of_the_bus_by_what_they_say_of_themselves(
    api: ApiClient, pool: Pool, queue: kombu.Queue, rabbitmq_url: str, eventually: Eventually
) -> None:
    listener = listen(api, f"{rabbitmq_url}/?queue=inbox")
    assert status(api, listener)["state"] == "waiting"
    pool.start()
    put(
        queue, {"n": 1.5}, type="order.placed", correlation_id="c-1", message_id="m-1", headers={"region": "eu", "n": 3}
    )
    event = {"cloudEvents_specversion": "1.0", "cloudEvents_id": "e-1", "cloudEvents_source": "/shop"}
    put(queue, {"n": 2}, headers=event | {"cloudEvents:type": "order.paid"})
    whole = {"specversion": "1.0", "id": "e-2", "source": "/shop", "type": "order.sent", "data": [1]}
    whole["expirytime"] = "2099-01-01T01:00:00+01:00"
    put(queue, whole, content_type="application/cloudevents+json")
    eventually(lambda: status(api, listener)["accepted"] == 3)
    placed, paid, sent = messages(api)
    assert (placed["messageType"], placed["source"], placed["payload"]) == (
        "order.placed",
        "/listeners/inbox",
        {"n": 1.5},
    )
    assert (placed["messageId"], placed["correlationId"]) == ("m-1", "c-1")
    assert placed["headers"] == {"region": "eu", "n": "3"}
    assert (paid["messageType"], paid["source"], paid["messageId"]) == ("order.paid", "/shop", "e-1")
    assert (sent["messageType"], sent["payload"]) == ("order.sent", [1])
    assert (paid["expiresAt"], sent["expiresAt"]) == (None, "2099-01-01T00:00:00.000Z")
    eventually(lambda: depth(queue) == 0)
    shown = status(api, listener)
    assert (shown["state"], shown["running"], shown["parked"]) == ("running", 1, 0)
    figures = api.get("/metrics").text
    assert 'esb_listener_messages_total{listener="inbox",outcome="accepted"} 3.0' in figures


def test_a_mapping_says_what_message_is_made(
    api: ApiClient, pool: Pool, queue: kombu.Queue, rabbitmq_url: str, eventually: Eventually
) -> None:
    mapping = {
        "messageType": "legacy.${body.kind}",
        "payload": {"id": "${body.id}", "was": "${body}", "queue": "${queue}"},
        "messageId": "${body.id}",
        "orderingKey": "${properties.correlationId}",
        "headers": {"tenant": "${headers.tenant}"},
    }
    listener = listen(api, f"{rabbitmq_url}/?queue=inbox", mapping=mapping)
    put(queue, {"kind": "sale", "id": 7}, correlation_id="c", headers={"tenant": "t1", "other": "x"})
    pool.start()
    eventually(lambda: status(api, listener)["accepted"] == 1)
    (message,) = messages(api)
    assert (message["messageType"], message["messageId"], message["orderingKey"]) == ("legacy.sale", "7", "c")
    assert message["payload"] == {"id": 7, "was": {"kind": "sale", "id": 7}, "queue": "inbox"}
    assert message["headers"] == {"tenant": "t1"}


def test_a_message_that_comes_again_is_taken_once(
    api: ApiClient, pool: Pool, queue: kombu.Queue, rabbitmq_url: str, eventually: Eventually
) -> None:
    listener = listen(api, f"{rabbitmq_url}/?queue=inbox")
    for _ in range(3):
        put(queue, {"n": 1}, type="t", message_id="same")
    put(queue, {"n": 2}, type="t", message_id="same")
    pool.start()
    eventually(lambda: status(api, listener)["duplicates"] == 2)
    shown = status(api, listener)
    assert (shown["accepted"], shown["parked"]) == (1, 1)
    (parked,) = api.get(f"{PATH}/{listener}/parked").json["items"]
    assert "belongs to another message" in parked["reason"]


def test_poison_is_parked_with_its_reason_blocks_nothing_and_can_be_replayed(
    api: ApiClient, pool: Pool, queue: kombu.Queue, rabbitmq_url: str, eventually: Eventually
) -> None:
    listener = listen(api, f"{rabbitmq_url}/?queue=inbox", mapping={"messageType": "${body.kind}"})
    put(queue, b"{no json")
    put(queue, {"sort": "late"}, headers={"a": "b"}, message_id="m-9")
    put(queue, b'{"kind": "t", "x": "\\u0000"}')
    put(queue, {"kind": "not a type"})
    put(queue, {"kind": "fine"})
    pool.start()
    eventually(lambda: status(api, listener)["accepted"] == 1)
    eventually(lambda: status(api, listener)["parked"] == 4)
    parked = {item["body"]: item for item in api.get(f"{PATH}/{listener}/parked").json["items"]}
    assert len(parked) == 4 and depth(queue) == 0
    assert "mapping.messageType" in parked['{"sort": "late"}']["reason"]
    late = parked['{"sort": "late"}']["id"]
    again = api.post(f"{PATH}/{listener}/parked/{late}/replay")
    assert (again.status_code, again.json["code"]) == (422, "mapping_failed")
    api.patch(f"{PATH}/{listener}", {"mapping": {"messageType": "${body.sort}"}})
    replayed = api.post(f"{PATH}/{listener}/parked/{late}/replay")
    assert replayed.status_code == 200
    message = api.get(f"/routing/messages/{replayed.json['id']}").json
    assert (message["messageType"], message["headers"], message["messageId"]) == ("late", {"a": "b"}, "m-9")
    assert api.post(f"{PATH}/{listener}/parked/{late}/replay").status_code == 404
    other = parked["{no json"]["id"]
    assert api.delete(f"{PATH}/{listener}/parked/{other}").status_code == 204
    assert status(api, listener)["parkedNow"] == 2
    acts = [entry["action"] for entry in api.get("/system/audit?resource=listener").json["items"]]
    assert {"create", "change", "replay_parked", "discard_parked"} <= set(acts)


def test_what_the_catalogue_turns_down_is_parked(
    api: ApiClient, pool: Pool, queue: kombu.Queue, rabbitmq_url: str, eventually: Eventually
) -> None:
    schema = {"type": "object", "required": ["n"]}
    typed = api.post("/routing/message-types", {"name": "checked", "mode": "enforce", "schema": schema})
    assert typed.status_code == 201, typed.text
    listener = listen(api, f"{rabbitmq_url}/?queue=inbox")
    put(queue, {"x": 1}, type="checked")
    put(queue, {"n": 1}, type="checked")
    pool.start()
    eventually(lambda: (status(api, listener)["accepted"], status(api, listener)["parked"]) == (1, 1))


def test_nothing_is_taken_after_a_pause_was_answered_and_all_of_it_when_it_ends(
    api: ApiClient, pool: Pool, queue: kombu.Queue, rabbitmq_url: str, eventually: Eventually
) -> None:
    listener = listen(api, f"{rabbitmq_url}/?queue=inbox")
    pool.start()
    put(queue, 1, type="t")
    eventually(lambda: status(api, listener)["accepted"] == 1)
    assert api.patch(f"{PATH}/{listener}", {"enabled": False}).json["status"]["state"] == "paused"
    for n in range(5):
        put(queue, n, type="t")
    eventually(lambda: depth(queue) == 5)
    assert status(api, listener)["accepted"] == 1
    api.patch(f"{PATH}/{listener}", {"enabled": True})
    eventually(lambda: status(api, listener)["accepted"] == 6)
    assert api.delete(f"{PATH}/{listener}").status_code == 204
    assert api.get(f"{PATH}/{listener}").status_code == 404


def test_a_broker_that_is_lost_is_told_and_taken_up_again(
    api: ApiClient, pool: Pool, queue: kombu.Queue, rabbitmq_url: str, eventually: Eventually
) -> None:
    parts = urlsplit(rabbitmq_url)
    assert parts.hostname and parts.port
    with Proxy(parts.hostname, parts.port) as proxy:
        listener = listen(api, f"amqp://guest:guest@127.0.0.1:{proxy.port}/?queue=inbox")
        pool.start()
        put(queue, 1, type="t")
        eventually(lambda: status(api, listener)["accepted"] == 1)
        proxy.refusing = True
        proxy.cut()
        eventually(lambda: status(api, listener)["state"] == "failing")
        tries = proxy.accepted
        put(queue, 2, type="t")
        proxy.refusing = False
        eventually(lambda: status(api, listener)["accepted"] == 2, 20)
        assert status(api, listener)["state"] == "running"
        assert proxy.accepted - tries < 5
        assert "guest" not in (status(api, listener)["lastError"] or "")


def test_a_listener_runs_in_one_process_and_moves_when_that_dies(
    api: ApiClient, pool: Pool, queue: kombu.Queue, rabbitmq_url: str, database: Database, eventually: Eventually
) -> None:
    listener = listen(api, f"{rabbitmq_url}/?queue=inbox")
    first, second = pool.start(), pool.start()
    eventually(lambda: status(api, listener)["running"] == 1)
    eventually(lambda: status(api, listener)["connectedAt"])
    holder, other = (first, second) if first.consuming else (second, first)
    assert not other.consuming
    with database.cursor() as cursor:  # what a sweep does when the process is silent
        cursor.execute("update worker set dead_at = now() where id = %s", (holder.worker_id,))
        jobs.sweep(cursor, 5.0)
    put(queue, 1, type="t")
    eventually(lambda: status(api, listener)["accepted"] == 1)
    assert queue.queue_declare(passive=True).consumer_count <= 2
    # The one that is dead learns of it with its next heartbeat.
    eventually(lambda: queue.queue_declare(passive=True).consumer_count == 1, seconds=20)


def test_a_process_that_is_declared_dead_and_takes_its_listener_up_again_consumes_it_once(
    api: ApiClient, pool: Pool, queue: kombu.Queue, rabbitmq_url: str, database: Database, eventually: Eventually
) -> None:
    listener = listen(api, f"{rabbitmq_url}/?queue=inbox")
    engine = pool.start()
    eventually(lambda: status(api, listener)["connectedAt"])
    first = engine.worker_id
    with database.cursor() as cursor:
        cursor.execute("update worker set dead_at = now() where id = %s", (first,))
        jobs.sweep(cursor, 5.0)
    with database.cursor() as cursor:
        claimed = "select worker_id from job where pool = 5 and state = 'f' and worker_id <> %s"
        eventually(lambda: [cursor.execute(claimed, (first,)), cursor.fetchone()][1], seconds=20)
    eventually(lambda: queue.queue_declare(passive=True).consumer_count == 1 and engine.consuming == 1)
    put(queue, 1, type="t")
    eventually(lambda: status(api, listener)["accepted"] == 1)


def test_a_list_of_redis_is_consumed_without_losing_what_a_crash_had_in_hand(
    api: ApiClient, pool: Pool, valkey: str, eventually: Eventually
) -> None:
    client = redis.Redis.from_url(valkey)
    listener = listen(api, f"{valkey}?queue=mail", mapping={"messageType": "mail.${body.kind}"})
    # A process died with one of its messages taken over, and another that ran beside it is wanted no more.
    client.rpush(f"mail:esb:{listener}:0", json.dumps({"kind": "left"}))
    client.rpush(f"mail:esb:{listener}:3", json.dumps({"kind": "stranded"}))
    client.lpush("mail", json.dumps({"kind": "raw"}), b"no json at all")
    with kombu.Connection(valkey) as connection:
        kombu.Producer(connection.default_channel).publish({"kind": "kombu"}, routing_key="mail", serializer="json")
    pool.start()
    eventually(lambda: status(api, listener)["accepted"] == 4)
    assert {m["messageType"] for m in messages(api)} == {"mail.left", "mail.stranded", "mail.raw", "mail.kombu"}
    eventually(lambda: status(api, listener)["parked"] == 1)
    eventually(lambda: client.keys("mail*") == [])
    client.close()


def test_a_redis_that_goes_away_and_comes_back_is_taken_up_again(
    api: ApiClient, pool: Pool, valkey: str, eventually: Eventually
) -> None:
    port = urlsplit(valkey).port
    assert port is not None
    client = redis.Redis.from_url(valkey)
    with Proxy("127.0.0.1", port) as proxy:
        listener = listen(api, f"{through(valkey, proxy.port)}?queue=post", mapping={"messageType": "t"})
        pool.start()
        eventually(lambda: status(api, listener)["connectedAt"])
        proxy.cut()
        eventually(lambda: status(api, listener)["lastError"])
        client.lpush("post", "1")
        eventually(lambda: status(api, listener)["accepted"] == 1)
    client.close()


def test_what_is_no_queue_is_refused_and_a_password_is_never_shown(api: ApiClient, database: Database) -> None:
    for url in ("amqp://h/?exchange=e", "amqp://h/", "http://h/", "sqs://sqs.eu-west-1.amazonaws.com/1/q"):
        refused = api.post(PATH, {"name": "x", "url": url})
        assert (refused.status_code, refused.json["errors"][0]["path"]) == (422, "url"), refused.text
    wrong = api.post(PATH, {"name": "x", "url": "amqp://h/?queue=q", "mapping": {"payload": {"a": "${1 +}"}}})
    assert wrong.json["errors"][0]["path"] == "mapping.payload.a"
    wrong = api.post(PATH, {"name": "x", "url": "amqp://h/?queue=q", "mapping": {"source": "${lookup('t', 'k')}"}})
    assert (wrong.status_code, wrong.json["errors"][0]["path"]) == (422, "mapping.source")
    body = {"name": "x", "url": "amqp://me:topsecret@127.0.0.1:1/?queue=q", "enabled": False}
    made = api.post(PATH, body)
    assert "topsecret" not in made.text and made.json["url"] == "amqp://me@127.0.0.1:1/?queue=q"
    path = f"{PATH}/{made.json['id']}"
    assert api.post(PATH, body).json["code"] == "name_taken"
    assert api.put(path, api.get(path).json).status_code == 200
    with database.cursor() as cursor:
        cursor.execute("select url, password from listener")
        url, password = cursor.fetchone()  # type: ignore[misc]
    assert "topsecret" not in url and password and "topsecret" not in password
    assert api.patch(path, {"prefetch": 5}, If_Match='"1"').status_code == 412
    assert [item["id"] for item in api.get(f"{PATH}?enabled=false&name=X").json["items"]] == [made.json["id"]]
