"""One kept-alive connection with a deadline over everything, and the pool that keeps such connections."""

from __future__ import annotations

import io
import os
import select
import socket
import ssl
import threading
import time
from collections import deque
from typing import TYPE_CHECKING, cast

from esb_workers.transport.address import Endpoint
from esb_workers.transport.answer import Answer, let_go
from esb_workers.transport.errors import ConnectFailed, ProtocolError, Timeout, TlsFailed
from esb_workers.transport.request import Origin
from esb_workers.transport.whole import Whole, whole

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

#: What may be read beyond the body's limit: status line, headers, chunk framing, trailers. Bytes.
HEAD_BUDGET = 256 * 1024
_INTERIM_ANSWERS = 10
_PIECE = 16 * 1024


class OverBudget(Exception):
    """The peer sends more framing than any honest answer has."""


class _Wire(io.RawIOBase):
    """A socket as a stream that counts what it reads and obeys a deadline (`time.monotonic`)."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self.deadline: float | None = None
        self.budget = 0
        self.received = 0
        self.early = b""  # what was received in the hope of a whole answer; a stream reads it first

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer, /) -> int | None:
        if self.deadline is None:
            return None  # between two calls: nothing may be read, so that peek() shows what is buffered
        if self.early:
            into = memoryview(buffer).cast("B")
            count = min(len(into), len(self.early))
            into[:count], self.early = self.early[:count], self.early[count:]
            return count
        self._ready()
        count = self._sock.recv_into(cast(bytearray, buffer))
        self._count(count)
        return count

    def receive(self, *, wait: bool) -> bool:
        """Add to `early`; False at the end of the stream. Without `wait`, for a plain socket that has something."""
        if wait:
            self._ready()
            data = self._sock.recv(_PIECE)
        else:  # a socket with a time-out is asked twice by `recv`: whether it has something, and for it
            data = os.read(self._sock.fileno(), _PIECE)
        self._count(len(data))
        self.early += data
        return bool(data)

    def _ready(self) -> None:
        if self.deadline is None:
            raise TimeoutError
        remaining = self.deadline - time.monotonic()
        if remaining <= 0:
            raise TimeoutError
        self._sock.settimeout(remaining)

    def _count(self, received: int) -> None:
        self.received += received
        if self.received > self.budget:
            raise OverBudget


class _Reader(io.BufferedReader):
    """Stays open when an HTTPResponse that has been read closes it: it lives as long as the connection."""

    def close(self) -> None:
        pass


class Connection:
    """An open connection to one origin. Used by one thread at a time."""

    def __init__(self, origin: Origin, sock: socket.socket) -> None:
        self.origin = origin
        self.reused = False
        self.idle_since = 0.0
        self._sock = sock
        self._tls = isinstance(sock, ssl.SSLSocket)
        self._streamed = False  # the reader has been used, and may have read on
        self._wire = _Wire(sock)
        self._reader = _Reader(self._wire, _PIECE)
        self._poll = select.poll()
        self._poll.register(sock, select.POLLIN)

    def makefile(self, mode: str) -> io.BufferedReader:
        """What HTTPResponse asks of a socket."""
        return self._reader

    def fileno(self) -> int:
        """The socket's."""
        return self._sock.fileno()

    @property
    def answered(self) -> bool:
        """Whether a byte of the current answer has come."""
        return self._wire.received > 0

    def start(self, deadline: float, budget: int) -> None:
        """Begin a call; all of it ends by `deadline` (`time.monotonic`) and reads at most `budget` bytes."""
        self._wire.deadline, self._wire.budget, self._wire.received = deadline, budget, 0

    def send(self, data: bytes, deadline: float) -> None:
        """Send everything. Raises TimeoutError or another OSError."""
        if not self._tls:
            # The kernel nearly always takes it all at once; a socket with a time-out is first asked whether it can.
            try:
                sent = os.write(self._sock.fileno(), data)
            except BlockingIOError:
                sent = 0
            if sent < len(data):
                self._sock.settimeout(_left(deadline))
                self._sock.sendall(memoryview(data)[sent:])  # a plain socket's time-out is over the whole
            return
        rest = memoryview(data)
        while rest:  # that of a TLS socket is per piece
            self._sock.settimeout(_left(deadline))
            rest = rest[self._sock.send(rest[:65536]) :]

    def read_whole(self, method: str, limit: int, *, wait: bool = True) -> tuple[Whole | None, bool]:
        """Receive once. The answer if that made it whole; else None, and whether more may do so."""
        if self._wire.early and not whole(self._wire.early, method, limit)[1]:
            return None, False  # as was found before: there may be nothing more to receive
        more = self._wire.receive(wait=wait)
        found, part = whole(self._wire.early, method, limit)
        if found is not None:
            self._wire.early = b""
        return found, more and part

    def read_head(self, method: str) -> Answer:
        """Status and headers of the final answer; interim answers (1xx) are passed over."""
        self._streamed = True
        for _ in range(_INTERIM_ANSWERS):
            answer = Answer(cast(socket.socket, self), method=method)
            answer.begin()
            if not 100 <= answer.status < 200 or answer.status == 101:
                return answer
            let_go(answer)
        raise ProtocolError("nothing but interim answers came")

    def finish(self) -> None:
        """End a call whose answer has been read to its end: the connection may serve another."""
        self._wire.deadline = None
        self.reused = True
        self.idle_since = time.monotonic()

    def usable(self) -> bool:
        """Whether nothing has come in since the last call: neither an end nor bytes nobody asked for."""
        if self._poll.poll(0) or self._wire.early:
            return False
        return not self._streamed or not self._reader.peek(1)

    def close(self) -> None:
        """Close the socket; never raises."""
        try:
            self._sock.close()
        except OSError:
            pass


def _left(deadline: float) -> float:
    remaining = deadline - time.monotonic()
    if remaining <= 0:
        raise TimeoutError
    return remaining


def connect(origin: Origin, endpoints: list[Endpoint], tls: ssl.SSLContext | None, deadline: float) -> Connection:
    """Connect to the first of `endpoints` that takes it. Raises ConnectFailed, TlsFailed, Timeout."""
    sock = open_socket(origin, endpoints, deadline)
    if tls is not None:
        sock = handshake(origin, sock, tls, deadline)
    return Connection(origin, sock)


def open_socket(origin: Origin, endpoints: list[Endpoint], deadline: float) -> socket.socket:
    """A socket to the first of `endpoints` that takes it. Raises ConnectFailed, Timeout."""
    failure: Exception | None = None
    for position, endpoint in enumerate(endpoints):
        sock = socket.socket(endpoint.family, socket.SOCK_STREAM)
        try:
            # Each address gets its share of what is left, so that one dead address leaves time for the next.
            sock.settimeout(_left(deadline) / (len(endpoints) - position))
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.connect(endpoint.sockaddr)
            return sock
        except OSError as error:
            sock.close()
            failure = error
    if isinstance(failure, TimeoutError):
        raise Timeout(f"{origin.host}:{origin.port} did not take the connection in time") from failure
    reason = failure.strerror if isinstance(failure, OSError) and failure.strerror else "no address"
    raise ConnectFailed(f"{origin.host}:{origin.port}: {reason}") from failure


def handshake(origin: Origin, sock: socket.socket, tls: ssl.SSLContext, deadline: float) -> socket.socket:
    """The socket under TLS, the certificate checked for the origin's host. Raises TlsFailed, Timeout."""
    try:
        sock.settimeout(_left(deadline))
        return tls.wrap_socket(sock, server_hostname=origin.host)
    except TimeoutError as error:
        sock.close()
        raise Timeout(f"{origin.host}:{origin.port}: no TLS handshake in time") from error
    except (OSError, ValueError) as error:
        sock.close()
        raise TlsFailed(f"{origin.host}:{origin.port}: {_tls_reason(error)}") from error


def _tls_reason(error: Exception) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"the certificate is not valid: {error.verify_message}"
    return "the TLS handshake failed"


class Pool:
    """Idle connections by origin, the latest used first. Safe for threads."""

    def __init__(self, max_idle_per_origin: int = 64, max_idle: int = 512, max_idle_seconds: float = 60) -> None:
        self._per_origin, self._total, self._seconds = max_idle_per_origin, max_idle, max_idle_seconds
        self._idle: dict[Origin, deque[Connection]] = {}
        self._count = 0
        self._next_sweep = 0.0
        self._lock = threading.Lock()

    def take(self, origin: Origin) -> Connection | None:
        """A usable connection to `origin`, now the caller's; None when there is none."""
        while True:
            with self._lock:
                connections = self._idle.get(origin)
                if not connections:
                    return None
                connection = connections.pop()
                self._count -= 1
            if connection.usable():
                return connection
            connection.close()

    def give(self, connection: Connection) -> None:
        """Keep a connection whose call is finished, or close it when there are enough."""
        surplus: list[Connection] = []
        with self._lock:
            if connection.idle_since >= self._next_sweep:
                surplus = self._sweep(connection.idle_since)
            connections = self._idle.get(connection.origin)
            if connections is None:
                connections = self._idle[connection.origin] = deque()
            if self._count < self._total and len(connections) < self._per_origin:
                connections.append(connection)
                self._count += 1
            else:
                surplus.append(connection)
        for one in surplus:
            one.close()

    def forget(self, origin: Origin | None = None) -> None:
        """Close the idle connections to `origin`, or all."""
        with self._lock:
            origins = list(self._idle) if origin is None else [origin]
            gone = [connection for one in origins for connection in self._idle.pop(one, ())]
            self._count -= len(gone)
        for connection in gone:
            connection.close()

    def _sweep(self, now: float) -> list[Connection]:
        old: list[Connection] = []
        for origin, connections in list(self._idle.items()):
            while connections and connections[0].idle_since < now - self._seconds:
                old.append(connections.popleft())
            if not connections:
                del self._idle[origin]
        self._count -= len(old)
        self._next_sweep = now + self._seconds / 6
        return old
