"""Destinations on other brokers, on a real RabbitMQ and a real Valkey."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import kombu
import pytest

from esb_workers.settings import Settings
from esb_workers.store.engine import Database
from esb_workers.transport.adapter import PreparedRequest
from esb_workers.transport.address import AddressGuard
from esb_workers.transport.brokers.amqp import AmqpTransport
from esb_workers.transport.brokers.redis import RedisTransport
from esb_workers.transport.errors import (
    AddressRefused,
    BrokerRefused,
    CallFailed,
    ConnectFailed,
    Nacked,
    Timeout,
    Unroutable,
)
from tests.support.api import ApiClient
from tests.support.engines import Engines
from tests.support.proxy import Proxy
from tests.support.servers import TcpValkey

LOOPBACK = AddressGuard.of(Settings.load({}, None))
Eventually = Callable[..., None]


@pytest.fixture
def rabbit(rabbitmq_url: str) -> Iterator[kombu.Connection]:
    """A connection to the broker, as its other users have it."""
    with kombu.Connection(rabbitmq_url) as connection:
        yield connection


@pytest.fixture(scope="module")
def valkey(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A Valkey on TCP, with a password."""
    server = TcpValkey(tmp_path_factory.mktemp("queues"))
    server.start()
    yield server.url
    server.stop()


@pytest.fixture
def amqp() -> Iterator[AmqpTransport]:
    transport = AmqpTransport(LOOPBACK)
    yield transport
    transport.close()


def queue(connection: kombu.Connection, name: str, **arguments: Any) -> kombu.Queue:
    """An empty queue."""
    made = kombu.Queue(name, queue_arguments=arguments)(connection.default_channel)
    made.declare()
    made.purge()
    return made


def letter(url: str, **headers: str) -> PreparedRequest:
    request = PreparedRequest()
    request.method, request.url, request.body = "POST", url, b'{"n": 1}'
    given = {"Content-Type": "application/json", "Idempotency-Key": "d-1", "ce-type": "order.placed"}
    request.headers = given | {name.replace("_", "-"): value for name, value in headers.items()}  # type: ignore[assignment]
    return request


def failure(transport: Any, request: PreparedRequest, seconds: float = 5.0) -> CallFailed:
    with pytest.raises(CallFailed) as raised:
        transport.send(request, timeout=seconds)
    assert "secret" not in str(raised.value)
    return raised.value


# --- end to end ------------------------------------------------------------------------------------------


def test_a_message_reaches_a_queue_of_rabbitmq_once_the_queue_is_there(
    api: ApiClient, settings: Settings, database: Database, rabbit: kombu.Connection, rabbitmq_url: str,
    eventually: Eventually,
) -> None:  # fmt: skip
    rabbit.default_channel.queue_delete("orders")
    service = api.post(
        "/services",
        {
            "name": "warehouse",
            "version": "1.0.0",
            "endpoint": f"{rabbitmq_url}/?queue=orders",
            "delivery": {"retryPolicy": {"maxRetries": 50, "backoffStrategy": "fixed", "initialDelay": 100}},
        },
    )
    assert service.status_code == 201
    assert service.json["endpoint"] == rabbitmq_url.replace("guest:guest@", "guest@") + "/?queue=orders"
    api.post("/routing/routes", {"name": "orders", "pattern": "order.*", "destinations": ["warehouse"]})
    sent = api.post(
        "/routing/send",
        {"source": "shop", "messageType": "order.placed", "payload": {"n": 1.0}, "headers": {"region": "eu west"}},
    ).json

    def shown() -> Any:
        return api.get(f"/routing/messages/{sent['id']}").json

    with Engines(settings, database):
        eventually(lambda: any(delivery["attempts"] for delivery in shown()["deliveries"]))
        attempt = shown()["deliveries"][0]["attempts"][0]
        assert attempt["outcome"] == "failed" and "no queue takes it" in attempt["error"]
        orders = queue(rabbit, "orders")
        eventually(lambda: shown()["status"] == "delivered")
    delivery = shown()["deliveries"][0]
    assert delivery["attempts"][-1]["statusCode"] == 202
    message = orders.get(no_ack=True)
    assert message.body == b'{"n":1.0}'
    assert message.headers["cloudEvents_id"] == sent["id"]
    assert message.headers["region"] == "eu west"
    assert message.properties["message_id"] == delivery["id"]
    assert message.properties["delivery_mode"] == 2
    assert orders.get(no_ack=True) is None


def test_a_password_is_encrypted_never_shown_and_kept_by_a_put_of_what_is_shown(
    api: ApiClient, database: Database
) -> None:
    body = {"name": "q", "version": "1.0.0", "endpoint": "amqp://me:topsecret@rabbit.example/?queue=orders"}
    made = api.post("/services", body)
    assert "topsecret" not in made.text
    path = f"/services/{made.json['id']}"
    shown = api.get(path).json

    def stored() -> str | None:
        with database.cursor() as cursor:
            cursor.execute("select endpoint || coalesce(password, '') from service")
            assert "topsecret" not in cursor.fetchone()[0]  # type: ignore[index]
            cursor.execute("select password from service")
            return cursor.fetchone()[0]  # type: ignore[index,no-any-return]

    kept = stored()
    assert kept is not None
    assert api.patch(path, {"endpoint": shown["endpoint"].replace("orders", "others")}).status_code == 200
    assert stored() == kept
    assert api.patch(path, {"endpoint": "amqp://me@elsewhere.example/?queue=orders"}).status_code == 200
    assert stored() is None
    audit = api.get("/system/audit")
    assert "topsecret" not in audit.text


@pytest.mark.parametrize(
    "endpoint", ["amqp://h/", "redis://h/0?exchange=e", "ftp://h/x", "amqp://h/?queue=q&x=1", "http://u:pw@h/"]
)
def test_an_endpoint_that_no_transport_reaches_is_refused_by_name(api: ApiClient, endpoint: str) -> None:
    refused = api.post("/services", {"name": "q", "version": "1.0.0", "endpoint": endpoint})
    assert refused.status_code == 422
    assert refused.json["errors"][0]["path"] == "endpoint"


def test_sqs_without_its_extra_is_refused_with_what_to_install(api: ApiClient) -> None:
    pytest.importorskip("kombu")
    from esb_workers.transport.brokers import sqs

    if sqs.installed():
        pytest.skip("the extra is installed")
    endpoint = "sqs://sqs.eu-west-1.amazonaws.com/123456789012/orders"
    refused = api.post("/services", {"name": "q", "version": "1.0.0", "endpoint": endpoint})
    assert refused.status_code == 422 and "python-esb[sqs]" in refused.json["errors"][0]["message"]


# --- RabbitMQ --------------------------------------------------------------------------------------------


def test_an_exchange_gets_the_message_type_as_routing_key_unless_one_is_given(
    amqp: AmqpTransport, rabbit: kombu.Connection, rabbitmq_url: str
) -> None:
    exchange = kombu.Exchange("events", "topic", durable=False)(rabbit.default_channel)
    exchange.declare()
    placed = queue(rabbit, "placed")
    placed.bind_to(exchange, "order.*")
    amqp.send(letter(f"{rabbitmq_url}/?exchange=events"), timeout=5)
    assert placed.get(no_ack=True).delivery_info["routing_key"] == "order.placed"
    amqp.send(letter(f"{rabbitmq_url}/?exchange=events&routingKey=order.x&path=order.paid"), timeout=5)
    assert placed.get(no_ack=True).delivery_info["routing_key"] == "order.paid"
    assert isinstance(failure(amqp, letter(f"{rabbitmq_url}/?exchange=events&routingKey=other")), Unroutable)
    assert isinstance(failure(amqp, letter(f"{rabbitmq_url}/?exchange=nowhere")), BrokerRefused)


def test_a_full_queue_that_refuses_is_a_failed_attempt(
    amqp: AmqpTransport, rabbit: kombu.Connection, rabbitmq_url: str
) -> None:
    queue(rabbit, "full", **{"x-max-length": 1, "x-overflow": "reject-publish"})
    amqp.send(letter(f"{rabbitmq_url}/?queue=full"), timeout=5)
    assert isinstance(failure(amqp, letter(f"{rabbitmq_url}/?queue=full")), Nacked)


def test_one_connection_serves_one_delivery_after_another(
    amqp: AmqpTransport, rabbit: kombu.Connection, rabbitmq_url: str
) -> None:
    queue(rabbit, "many")
    port = urlsplit(rabbitmq_url).port
    assert port is not None
    with Proxy("127.0.0.1", port) as proxy:
        for _ in range(5):
            amqp.send(letter(f"amqp://guest:guest@127.0.0.1:{proxy.port}/?queue=many"), timeout=5)
        assert proxy.accepted == 1
        proxy.cut()
        answer = amqp.send(letter(f"amqp://guest:guest@127.0.0.1:{proxy.port}/?queue=many"), timeout=5)
        assert answer.status_code == 202 and proxy.accepted == 2


def test_a_wrong_password_is_told_without_it(amqp: AmqpTransport, rabbitmq_url: str) -> None:
    error = failure(amqp, letter(rabbitmq_url.replace("guest:guest", "guest:secret") + "/?queue=q"))
    assert isinstance(error, BrokerRefused) and error.transient


# --- Redis -----------------------------------------------------------------------------------------------


def test_a_consumer_of_kombu_reads_what_was_put_on_a_redis_list(valkey: str) -> None:
    transport = RedisTransport(LOOPBACK)
    for _ in range(2):
        transport.send(letter(f"{valkey}?queue=mail", ce_id="m-1"), timeout=5)
    transport.close()
    with kombu.Connection(valkey) as connection, connection.SimpleQueue("mail") as mail:
        message = mail.get(timeout=5)
        assert json.loads(message.body) == {"n": 1}
        assert message.headers["cloudEvents_id"] == "m-1"
        assert message.properties["message_id"] == "d-1"
        message.ack()
        mail.get(timeout=5).ack()


def test_a_refused_login_at_redis_is_told_without_the_password(valkey: str) -> None:
    parts = urlsplit(valkey)
    error = failure(RedisTransport(LOOPBACK), letter(f"redis://:secret@127.0.0.1:{parts.port}/0?queue=q"))
    assert isinstance(error, BrokerRefused)


# --- any -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("scheme", "transport"), [("amqp", AmqpTransport), ("redis", RedisTransport)])
def test_a_broker_that_trickles_or_says_nothing_is_given_up_at_the_deadline(scheme: str, transport: Any) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        stop = threading.Event()

        def trickle() -> None:
            peer, _ = server.accept()
            with peer:
                while not stop.wait(0.05):
                    try:
                        peer.send(b"*")
                    except OSError:
                        return

        threading.Thread(target=trickle, daemon=True).start()
        began = time.monotonic()
        url = f"{scheme}://u:secret@127.0.0.1:{server.getsockname()[1]}/?queue=q"
        error = failure(transport(LOOPBACK), letter(url), 0.5)
        stop.set()
    assert isinstance(error, Timeout) and time.monotonic() - began < 3


@pytest.mark.parametrize("transport", [AmqpTransport, RedisTransport])
def test_addresses_are_judged_as_for_http(transport: Any) -> None:
    scheme = "amqp" if transport is AmqpTransport else "redis"
    error = failure(transport(AddressGuard(allow=())), letter(f"{scheme}://127.0.0.1:1/?queue=q"))
    assert isinstance(error, AddressRefused) and not error.transient
    assert isinstance(failure(transport(LOOPBACK), letter(f"{scheme}://127.0.0.1:1/?queue=q")), ConnectFailed)


def test_a_broker_that_is_gone_costs_no_files(amqp: AmqpTransport) -> None:
    def files() -> int:
        return len(list(Path("/proc/self/fd").iterdir()))

    failure(amqp, letter("amqp://127.0.0.1:1/?queue=q"))
    before = files()
    for _ in range(20):
        failure(amqp, letter("amqp://127.0.0.1:1/?queue=q"))
    assert files() <= before + 1
