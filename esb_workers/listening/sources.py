"""Queues to consume from: what is received stays the broker's until it is acknowledged."""

from __future__ import annotations

import base64
import binascii
import json
import socket
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, Final

from esb_workers.listening.definition import Listener
from esb_workers.listening.incoming import Incoming
from esb_workers.transport.brokers import amqp, redis
from esb_workers.transport.brokers.address import AMQP, Address
from esb_workers.transport.brokers.base import Dialer
from esb_workers.transport.deadlines import Deadlines
from esb_workers.transport.errors import CallFailed, ConnectionLost, Timeout

#: Seconds until a broker must have taken a connection and its login.
CONNECT: Final = 10.0
#: A broker that does not answer a command for this long is gone, seconds.
SILENT: Final = 15.0
HEARTBEAT: Final = 20.0
#: Most processes of one listener.
MOST_PROCESSES: Final = 16


class Source(ABC):
    """One connection that consumes one queue. Used by one thread."""

    def __init__(self, address: Address, sock: socket.socket, handle: socket.socket) -> None:
        self.address = address
        self._sock = sock
        self._handle = handle

    @abstractmethod
    def open(self) -> None:
        """Log in and begin. Raises what the library raises."""

    @abstractmethod
    def receive(self, limit: int, seconds: float) -> list[Incoming]:
        """Up to `limit` messages, oldest first; empty when none came within `seconds`."""

    @abstractmethod
    def acknowledge(self, batch: Sequence[Incoming]) -> None:
        """Have the broker forget a batch that `receive` gave."""

    @abstractmethod
    def refused(self, error: Exception) -> CallFailed | None:
        """Why the broker refused, if `error` says that it did."""

    def close(self) -> None:
        """Hang up; what is not acknowledged goes back. Never raises, never waits."""
        for sock in (self._handle, self._sock):
            try:
                sock.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
            sock.close()


class AmqpSource(Source):
    """A queue of RabbitMQ."""

    def __init__(self, listener: Listener, sock: socket.socket, handle: socket.socket) -> None:
        super().__init__(listener.address, sock, handle)
        self._prefetch = listener.prefetch
        self._connection: Any = None
        self._channel: Any = None
        self._buffer: list[Incoming] = []

    def open(self) -> None:
        """Consume the queue, which must be there."""
        self._connection = amqp.connect(self.address, self._sock, HEARTBEAT)
        self._channel = self._connection.channel()
        self._channel.auto_decode = False
        self._channel.basic_qos(0, self._prefetch, False)
        self._channel.basic_consume(self.address.queue, callback=self._note)

    def _note(self, message: Any) -> None:
        body = message.body if isinstance(message.body, bytes) else str(message.body).encode()
        properties = dict(message.properties)
        headers = properties.pop("application_headers", None) or {}
        self._buffer.append(Incoming(body, headers, properties, message.delivery_tag))

    def receive(self, limit: int, seconds: float) -> list[Incoming]:
        """What came, and whatever else lies there already."""
        wait = seconds
        while len(self._buffer) < limit:
            try:
                self._connection.drain_events(timeout=wait)
            except TimeoutError:
                break
            wait = 0.001  # not 0: that is `None` to a TLS socket that holds half a frame
        self._connection.heartbeat_tick()
        batch, self._buffer = self._buffer[:limit], self._buffer[limit:]
        return batch

    def acknowledge(self, batch: Sequence[Incoming]) -> None:
        """All up to the last: batches are taken in order, so that nothing else lies below it."""
        self._channel.basic_ack(batch[-1].tag, multiple=True)

    def refused(self, error: Exception) -> CallFailed | None:
        """What the broker's own words say."""
        return amqp.refused(error, self.address)

    def close(self) -> None:
        """Forget the connection, then hang up."""
        super().close()
        if self._connection is not None:
            try:
                self._connection.collect()
            except Exception:  # it is broken already
                pass


class RedisSource(Source):
    """A list of Redis: moved, never popped, onto a list of this process's own, so that a crash loses nothing.

    kombu's consumer pops a message before it notes that it has it, and loses it with the process.
    """

    def __init__(self, listener: Listener, slot: int, sock: socket.socket, handle: socket.socket) -> None:
        super().__init__(listener.address, sock, handle)
        self._queue = listener.address.queue or ""
        self._processes = listener.processes
        self._slot = slot
        self._prefix = f"{self._queue}:esb:{listener.id}"
        self._mine = f"{self._prefix}:{slot}"
        self._redis = redis.connection(listener.address, sock, SILENT)
        self._left: list[bytes] = []

    def open(self) -> None:
        """Take up what was left unacknowledged here, and put back what lies in lists that nobody serves any more."""
        self._redis.connect()  # type: ignore[no-untyped-call]
        if self._slot == 0:
            for number in range(self._processes, MOST_PROCESSES):
                while self._ask("LMOVE", f"{self._prefix}:{number}", self._queue, "LEFT", "RIGHT") is not None:
                    pass
        self._left = list(reversed(self._ask("LRANGE", self._mine, 0, -1)))

    def receive(self, limit: int, seconds: float) -> list[Incoming]:
        """What was left first; then what comes."""
        if self._left:
            batch, self._left = self._left[:limit], self._left[limit:]
            return [_opened(value) for value in batch]
        first = self._ask("BLMOVE", self._queue, self._mine, "RIGHT", "LEFT", seconds)
        if first is None:
            return []
        found = [first]
        while len(found) < limit:
            value = self._ask("LMOVE", self._queue, self._mine, "RIGHT", "LEFT")
            if value is None:
                break
            found.append(value)
        return [_opened(value) for value in found]

    def acknowledge(self, batch: Sequence[Incoming]) -> None:
        """Take them off this process's list, whose oldest lie at its end."""
        for incoming in batch:
            self._redis.send_command("LREM", self._mine, -1, incoming.tag)  # type: ignore[no-untyped-call]
        for _ in batch:
            self._redis.read_response()

    def _ask(self, *command: Any) -> Any:
        self._redis.send_command(*command)  # type: ignore[no-untyped-call]
        return self._redis.read_response()

    def refused(self, error: Exception) -> CallFailed | None:
        """What the server's own words say."""
        return redis.refused(error, self.address)


def _opened(value: bytes) -> Incoming:
    """A value off a list: kombu's envelope taken apart, or as it is."""
    try:
        whole = json.loads(value)
    except (ValueError, RecursionError):
        whole = None
    if not isinstance(whole, dict) or not isinstance(whole.get("properties"), dict) or "body" not in whole:
        return Incoming(value, tag=value)
    properties = {**whole["properties"], "content_type": whole.get("content-type")}
    headers = whole.get("headers")
    return Incoming(_body(whole["body"], properties), headers if isinstance(headers, dict) else {}, properties, value)


def _body(body: Any, properties: dict[str, Any]) -> bytes:
    if not isinstance(body, str):
        return json.dumps(body).encode()
    if properties.get("body_encoding") != "base64":
        return body.encode("utf-8", "replace")
    try:
        return base64.b64decode(body, validate=True)
    except (binascii.Error, ValueError):
        return body.encode("utf-8", "replace")


class Sources:
    """Opens sources. One a process; safe for threads."""

    def __init__(self, dialer: Dialer) -> None:
        self._dialer = dialer
        self._deadlines = Deadlines()

    def open(self, listener: Listener, slot: int) -> Source:
        """A source that is open. Raises a CallFailed, which never quotes the password."""
        address = listener.address
        deadline = time.monotonic() + CONNECT
        sock, handle = self._dialer.dial(address, deadline)
        source: Source
        if address.scheme in AMQP:
            source = AmqpSource(listener, sock, handle)
        else:
            source = RedisSource(listener, slot, sock, handle)
        with self._deadlines.watch(handle, deadline) as watch:
            try:
                source.open()
            except Exception as error:
                source.close()
                if watch.fired:
                    raise Timeout(f"{address.place}: the broker did not answer in time") from error
                raise source.refused(error) or ConnectionLost(f"{address.place}: the connection broke") from error
        return source
