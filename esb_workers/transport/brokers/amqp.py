"""AMQP 0-9-1 (RabbitMQ) through kombu, with publisher confirms."""

from __future__ import annotations

import socket
from typing import Any

import amqp
import kombu
from amqp import exceptions
from amqp.transport import TCPTransport
from kombu.transport import pyamqp

from esb_workers.transport.brokers.address import Address
from esb_workers.transport.brokers.base import BrokerTransport, Line
from esb_workers.transport.brokers.letter import Letter
from esb_workers.transport.errors import BrokerRefused, CallFailed, Nacked, RequestRefused, Unroutable


class _Given(TCPTransport):  # type: ignore[misc]
    """Frames over a socket that is connected, and under TLS if need be, already."""

    def __init__(self, sock: socket.socket, host: str, **kw: Any) -> None:
        super().__init__(host, **kw)
        self._given = sock

    def _connect(self, host: str, port: int, timeout: float | None) -> None:
        self.sock = self._given


class _Connection(pyamqp.Connection):  # type: ignore[misc]
    """Kombu's connection over a given socket."""

    def __init__(self, *, given: socket.socket, **kw: Any) -> None:
        super().__init__(**kw)
        self._given = given

    def Transport(self, host: str, *_: Any, **__: Any) -> Any:  # noqa: N802  named by amqp
        return _Given(self._given, host)  # no time-outs: whoever opened the socket watches over it


class _Transport(pyamqp.Transport):  # type: ignore[misc]
    Connection = _Connection


def connect(address: Address, given: socket.socket, heartbeat: float = 0) -> Any:
    """Log in over a connected socket: kombu's connection, one level below what tries again by itself."""
    client = kombu.Connection(
        hostname=f"[{address.host}]" if ":" in address.host else address.host,
        port=address.port,
        userid=address.user or "guest",
        password=address.password or "guest",
        virtual_host=address.space,
        transport=_Transport,
        heartbeat=heartbeat,
        transport_options={"given": given, "confirm_publish": True},
    )
    return client.transport.establish_connection()


def refused(error: Exception, address: Address) -> CallFailed | None:
    """Why the broker refused, if it did. Its words name exchanges and queues, never a password."""
    if isinstance(error, exceptions.MessageNacked):
        return Nacked(f"{address.place}: the broker refused the message (nack)")
    code = getattr(error, "reply_code", None)
    if isinstance(error, amqp.AMQPError) and code:
        return BrokerRefused(f"{address.place}: {code} {str(getattr(error, 'reply_text', ''))[:200]}")
    if isinstance(error, amqp.ConnectionError) and not isinstance(error, OSError):
        return BrokerRefused(f"{address.place}: the broker takes no login of this kind")
    return None


class AmqpLine(Line):
    """One connection with one channel."""

    def __init__(self, address: Address, sock: socket.socket, handle: socket.socket) -> None:
        super().__init__(address, handle)
        self._sock = sock
        self._address = address
        self._connection: Any = None
        self._channel: Any = None
        self._returned: list[Exception] = []

    def open(self, address: Address, deadline: float) -> None:
        """Log in and open the channel."""
        self._connection = connect(address, self._sock)
        self._channel = self._connection.channel()
        self._channel.events["basic_return"].add(self._note)

    def _note(self, error: Exception, exchange: str, routing_key: str, message: Any) -> None:
        self._returned.append(error)

    def publish(self, address: Address, letter: Letter, deadline: float) -> None:
        """Publish as mandatory and wait for the confirm: what no queue takes comes back first."""
        exchange = address.exchange or ""
        key = address.queue if address.queue is not None else address.key if address.key is not None else letter.type
        if key is None:
            raise RequestRefused("the endpoint has no routingKey, and the event says no type to take in its place")
        self._returned.clear()
        message = self._channel.prepare_message(
            letter.body,
            content_type=letter.content_type,
            headers=dict(letter.headers),
            properties=letter.properties(),
        )
        self._channel.basic_publish(message, exchange=exchange, routing_key=key, mandatory=True)
        if self._returned:
            where = f"exchange {exchange!r}, key {key!r}" if exchange else f"queue {key!r}"
            raise Unroutable(f"{address.place}: the message came back ({where}): no queue takes it")

    def translated(self, error: Exception) -> CallFailed | None:
        """What the broker's own words say."""
        return refused(error, self._address)

    def hang_up(self) -> None:
        """Forget the connection without a word: its socket is shut down already."""
        if self._connection is not None:
            self._connection.collect()
        self._sock.close()


class AmqpTransport(BrokerTransport):
    """`amqp://` and `amqps://`."""

    def line(self, address: Address, sock: socket.socket, handle: socket.socket) -> Line:
        """A connection that is not logged in yet."""
        return AmqpLine(address, sock, handle)
