"""The URLs of other brokers' queues: what they mean, what is refused, and that passwords stay apart."""

from __future__ import annotations

import pytest

from esb_workers.transport.adapter import PreparedRequest
from esb_workers.transport.brokers import letter as letters
from esb_workers.transport.brokers.address import is_broker, parse, same_login, with_password, without_password
from esb_workers.transport.errors import RequestRefused


def test_a_queue_is_named_with_its_broker_its_virtual_host_and_who_logs_in() -> None:
    address = parse("amqp://shop:s%40cret@rabbit.example:5673/eu%2Fwest?queue=orders.new")
    assert (address.host, address.port, address.space) == ("rabbit.example", 5673, "eu/west")
    assert (address.user, address.password) == ("shop", "s@cret")
    assert (address.queue, address.exchange, address.key) == ("orders.new", None, None)
    assert "s@cret" not in repr(address)


def test_what_is_left_out_is_as_the_brokers_have_it() -> None:
    assert parse("amqp://rabbit?queue=q").space == "/"
    assert (parse("amqps://rabbit?queue=q").port, parse("amqp://rabbit?queue=q").port) == (5671, 5672)
    assert (parse("redis://cache?queue=q").port, parse("redis://cache?queue=q").space) == (6379, "0")


def test_an_exchange_takes_a_routing_key_and_a_delivery_path_takes_its_place() -> None:
    assert parse("amqp://rabbit/?exchange=events&routingKey=a.b").key == "a.b"
    assert parse("amqp://rabbit/?exchange=events").key is None
    assert parse("amqp://rabbit/?exchange=events&routingKey=a.b&path=c.d").key == "c.d"
    assert parse("amqp://rabbit/?queue=q&path=other").queue == "other"


@pytest.mark.parametrize(
    "url",
    [
        "amqp://rabbit/",  # neither queue nor exchange
        "amqp://rabbit/?queue=q&exchange=e",
        "amqp://rabbit/?queue=q&routingKey=k",
        "amqp://rabbit/?queue=",
        "amqp://rabbit/?queue=q&queue=r",
        "amqp://rabbit/?queue=q&ttl=5",
        "amqp://rabbit/?queue=q#part",
        "amqp://:5672/?queue=q",
        "amqp://rabbit:port/?queue=q",
        "redis://cache/zero?queue=q",
        "redis://cache/0?exchange=e",
        "sqs://sqs.eu-west-1.amazonaws.com/queue-alone",
        "mqtt://rabbit/?queue=q",
        f"amqp://rabbit/?queue={'q' * 256}",
    ],
)
def test_a_url_that_says_too_little_or_too_much_is_refused_without_quoting_its_password(url: str) -> None:
    with pytest.raises(RequestRefused) as refusal:
        parse(url.replace("://", "://me:hidden@"))
    assert "hidden" not in str(refusal.value)


def test_the_password_is_kept_apart_and_put_back_for_the_call() -> None:
    shown, password = without_password("amqp://me:p%2Fw@rabbit:5672/v?queue=q")
    assert (shown, password) == ("amqp://me@rabbit:5672/v?queue=q", "p/w")
    assert parse(with_password(shown, "p/w")).password == "p/w"
    assert without_password("redis://:pw@cache/1?queue=q") == ("redis://cache/1?queue=q", "pw")
    assert parse(with_password("redis://cache/1?queue=q", "pw")).user == ""
    assert without_password("amqp://rabbit?queue=q") == ("amqp://rabbit?queue=q", None)
    assert is_broker("amqp://rabbit") and not is_broker("https://host")


def test_a_kept_password_follows_neither_to_another_server_nor_to_another_user() -> None:
    one = "amqp://me@rabbit:5672/v?queue=q"
    assert same_login(one, "amqp://me@rabbit:5672/w?queue=other")
    assert not same_login(one, "amqp://me@evil:5672/v?queue=q")
    assert not same_login(one, "amqp://you@rabbit:5672/v?queue=q")
    assert not same_login(one, "amqps://me@rabbit:5672/v?queue=q")


def test_a_letter_is_the_event_by_the_binding_for_amqp() -> None:
    request = PreparedRequest()
    request.body = b'{"a": 1}'
    request.headers = {  # type: ignore[assignment]
        "Content-Type": "application/json",
        "ce-id": "m-1",
        "ce-source": "/caf%C3%A9",
        "ce-type": "order.placed",
        "Idempotency-Key": "d-1",
        "X-Correlation-ID": "c-1",
        "webhook-timestamp": "1700000000",
        "User-Agent": "python-esb",
        "region": "eu%20west",
    }
    letter = letters.of(request)
    assert letter.headers["cloudEvents_id"] == "m-1"
    assert letter.headers["cloudEvents_source"] == "/café"
    assert letter.headers["region"] == "eu west"
    assert letter.properties() == {
        "message_id": "d-1",
        "correlation_id": "c-1",
        "type": "order.placed",
        "timestamp": 1700000000,
        "app_id": "python-esb",
        "delivery_mode": 2,
    }
    assert letter.content_type == "application/json"
    assert not {"Content-Type", "User-Agent"} & letter.headers.keys()
