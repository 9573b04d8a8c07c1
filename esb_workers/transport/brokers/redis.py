"""Lists of Redis or Valkey, in kombu's form: what Celery's and kombu's consumers read.

The form is kombu's, the commands are our own: kombu's Redis transport opens pools and a poller for each connection,
and drops without a word what is published through an exchange that a flush has unbound.
"""

from __future__ import annotations

import socket
from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.connection import Connection
from redis.retry import Retry

from esb_workers.transport.brokers.address import Address
from esb_workers.transport.brokers.base import BrokerTransport, Line
from esb_workers.transport.brokers.letter import Letter, envelope
from esb_workers.transport.errors import BrokerRefused, CallFailed


class GivenConnection(Connection):
    """redis-py's connection over a socket that is connected, and under TLS if need be, already."""

    def __init__(self, given: socket.socket, **kw: Any) -> None:
        super().__init__(**kw)  # type: ignore[no-untyped-call]
        self._given = given

    def _connect(self) -> socket.socket:
        self._given.settimeout(self.socket_timeout)
        return self._given


def connection(address: Address, given: socket.socket, seconds: float | None = None) -> Connection:
    """A connection that logs in when it is first used, and never tries anything twice; `seconds` for each answer."""
    return GivenConnection(
        given,
        host=address.host,
        port=address.port,
        db=int(address.space),
        username=address.user or None,
        password=address.password or None,
        socket_timeout=seconds,
        retry=Retry(NoBackoff(), 0),
        protocol=2,
    )


def refused(error: Exception, address: Address) -> CallFailed | None:
    """Why the server refused, if it did: the first word of its answer, which names no secret."""
    login = isinstance(error, redis.AuthenticationError)
    if login or isinstance(error, redis.ResponseError):
        word = "the login was refused" if login else str(error)[:200]
        return BrokerRefused(f"{address.place}: {word}")
    return None


class RedisLine(Line):
    """One connection. The answer to LPUSH is the confirm."""

    def __init__(self, address: Address, sock: socket.socket, handle: socket.socket) -> None:
        super().__init__(address, handle)
        self._address = address
        self._connection = connection(address, sock)
        self._sock = sock

    def open(self, address: Address, deadline: float) -> None:
        """Log in and choose the database."""
        self._connection.connect()  # type: ignore[no-untyped-call]

    def publish(self, address: Address, letter: Letter, deadline: float) -> None:
        """Put the message on the list."""
        assert address.queue is not None
        self._connection.send_command("LPUSH", address.queue, envelope(letter, address.queue))  # type: ignore[no-untyped-call]
        self._connection.read_response()

    def translated(self, error: Exception) -> CallFailed | None:
        """What the server's own words say."""
        return refused(error, self._address)

    def hang_up(self) -> None:
        """Close the socket."""
        self._connection.disconnect()  # type: ignore[no-untyped-call]
        self._sock.close()


class RedisTransport(BrokerTransport):
    """`redis://` and `rediss://`."""

    def line(self, address: Address, sock: socket.socket, handle: socket.socket) -> Line:
        """A connection that is not logged in yet."""
        return RedisLine(address, sock, handle)
