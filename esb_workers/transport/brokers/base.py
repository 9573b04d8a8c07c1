"""What all brokers have in common: connections that pass the guard, keep a deadline, and are kept for the next."""

from __future__ import annotations

import select
import socket
import ssl
import threading
import time
from abc import ABC, abstractmethod
from collections import deque

import certifi

from esb_workers.transport import request as wire
from esb_workers.transport.adapter import PreparedRequest, Response, taken
from esb_workers.transport.address import AddressGuard, Lookup, Resolver
from esb_workers.transport.brokers import address as addresses
from esb_workers.transport.brokers import letter as letters
from esb_workers.transport.brokers.address import TLS, Address, Origin
from esb_workers.transport.brokers.letter import Letter
from esb_workers.transport.connection import handshake, open_socket
from esb_workers.transport.deadlines import Deadlines, Watch
from esb_workers.transport.errors import CallFailed, ConnectionLost, RequestRefused, Timeout

#: A connection that nobody has used for this long is closed, seconds.
MAX_IDLE = 60.0
#: Kept connections to one broker as one user.
MAX_KEPT = 32


class Dialer:
    """Opens sockets to brokers: the address judged when it connects, TLS with the certificate checked."""

    def __init__(self, guard: AddressGuard, *, tls: ssl.SSLContext | None = None, lookup: Lookup | None = None) -> None:
        self._resolver = Resolver(guard, lookup)
        self._tls = tls
        self._lock = threading.Lock()

    def dial(self, address: Address, deadline: float) -> tuple[socket.socket, socket.socket]:
        """The socket to talk through, and a second handle on the same connection, to cut it by. Raises a CallFailed."""
        origin = wire.Origin(address.scheme, address.host, address.port)
        plain = open_socket(origin, self._resolver.resolve(origin.host, origin.port, deadline), deadline)
        handle = plain.dup()  # before TLS: a TLS socket cannot be doubled
        if address.scheme not in TLS:
            return plain, handle
        try:
            return handshake(origin, plain, self._context(), deadline), handle
        except CallFailed:
            handle.close()
            raise

    def judge(self, address: Address, deadline: float) -> None:
        """Judge the address without connecting. Raises a CallFailed."""
        self._resolver.resolve(address.host, address.port, deadline)

    def _context(self) -> ssl.SSLContext:
        with self._lock:
            if self._tls is None:
                self._tls = ssl.create_default_context()
                self._tls.load_verify_locations(certifi.where())
            return self._tls


class Line(ABC):
    """An open connection to a broker. Used by one thread at a time."""

    def __init__(self, address: Address, handle: socket.socket) -> None:
        self.origin = address.origin
        self.handle = handle
        self.reused = False
        self.idle_since = 0.0

    @abstractmethod
    def open(self, address: Address, deadline: float) -> None:
        """Log in. Raises what the library raises."""

    @abstractmethod
    def publish(self, address: Address, letter: Letter, deadline: float) -> None:
        """Send, and wait until the broker has taken it. Raises a CallFailed, or what the library raises."""

    @abstractmethod
    def translated(self, error: Exception) -> CallFailed | None:
        """Why the broker refused, if `error` says that it did; None for a connection that broke."""

    @abstractmethod
    def hang_up(self) -> None:
        """Close what the library holds. May raise anything."""

    def usable(self) -> bool:
        """Whether nothing has come in since it was last used: an end, or a word nobody asked for."""
        try:
            return not select.select([self.handle], [], [], 0)[0]
        except (OSError, ValueError):
            return False

    def close(self) -> None:
        """Close it; never raises, never waits."""
        try:
            self.handle.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        try:
            self.hang_up()
        except Exception:  # it is broken already
            pass
        self.handle.close()


class Lines:
    """Kept connections, the latest used first. Safe for threads."""

    def __init__(self) -> None:
        self._idle: dict[Origin, deque[Line]] = {}
        self._lock = threading.Lock()

    def take(self, origin: Origin) -> Line | None:
        """A usable one, now the caller's; None when there is none."""
        while True:
            with self._lock:
                lines = self._idle.get(origin)
                line = lines.pop() if lines else None
            if line is None or line.usable():
                return line
            line.close()

    def give(self, line: Line) -> None:
        """Keep one whose work is done; close those that have not been used for long, or are too many."""
        line.reused, line.idle_since = True, time.monotonic()
        old: list[Line] = []
        with self._lock:
            self._idle.setdefault(line.origin, deque()).append(line)
            for origin, lines in list(self._idle.items()):
                while lines and (len(lines) > MAX_KEPT or lines[0].idle_since < line.idle_since - MAX_IDLE):
                    old.append(lines.popleft())
                if not lines:
                    del self._idle[origin]
        for one in old:
            one.close()

    def forget(self, origin: Origin | None = None) -> None:
        """Close those to `origin`, or all."""
        with self._lock:
            origins = list(self._idle) if origin is None else [origin]
            gone = [line for one in origins for line in self._idle.pop(one, ())]
        for line in gone:
            line.close()


class _Stale(Exception):
    """A kept connection broke before the broker said anything."""


class BrokerTransport(ABC):
    """A transport whose destinations are queues. A message that the broker has taken is answered 202."""

    def __init__(self, guard: AddressGuard, *, tls: ssl.SSLContext | None = None, lookup: Lookup | None = None) -> None:
        self.dialer = Dialer(guard, tls=tls, lookup=lookup)
        self._lines = Lines()
        self._deadlines = Deadlines()

    @classmethod
    def check_endpoint(cls, endpoint: str) -> None:
        """Raises ValueError unless `endpoint` names a queue or an exchange."""
        try:
            addresses.parse(endpoint)
        except RequestRefused as error:
            raise ValueError(error.detail) from None

    @abstractmethod
    def line(self, address: Address, sock: socket.socket, handle: socket.socket) -> Line:
        """A line over a socket that is connected."""

    def send(self, request: PreparedRequest, *, timeout: float = 10.0, max_body: int = 0) -> Response:
        """Send the request as a message; `timeout` seconds for the whole. Raises a CallFailed.

        A kept connection that breaks upon it is followed by a new one, once: the message may then be there twice,
        under one id.
        """
        started = time.monotonic()
        deadline = started + timeout
        address, letter = addresses.parse(request.url or ""), letters.of(request)
        kept, resent = self._lines.take(address.origin), False
        try:
            self._through(kept or self.connect(address, deadline), address, letter, deadline)
        except _Stale:
            self._lines.forget(address.origin)
            resent = True
            try:
                self._through(self.connect(address, deadline), address, letter, deadline)
            except CallFailed as error:
                error.resent = True
                raise
        return taken(time.monotonic() - started, resent=resent)

    def connect(self, address: Address, deadline: float) -> Line:
        """A line that is open and logged in. Raises a CallFailed."""
        sock, handle = self.dialer.dial(address, deadline)
        line = self.line(address, sock, handle)
        with self._deadlines.watch(handle, deadline) as watch:
            try:
                line.open(address, deadline)
            except Exception as error:
                line.close()
                raise _told(line, watch, address, error) from error
        return line

    def _through(self, line: Line, address: Address, letter: Letter, deadline: float) -> None:
        fine = False
        try:
            with self._deadlines.watch(line.handle, deadline) as watch:
                try:
                    line.publish(address, letter, deadline)
                    fine = True
                except Exception as error:
                    told = _told(line, watch, address, error)
                    if line.reused and isinstance(told, ConnectionLost):
                        raise _Stale from error
                    raise told from error
        finally:
            if fine:
                self._lines.give(line)
            else:
                line.close()

    def close(self) -> None:
        """Close the kept connections. It can still be used."""
        self._lines.forget()


def _told(line: Line, watch: Watch, address: Address, error: Exception) -> CallFailed:
    """What went wrong, in the words of the bus. Nothing a library says is passed on that could hold a password."""
    if isinstance(error, CallFailed):
        return error
    if watch.fired or isinstance(error, TimeoutError):
        return Timeout(f"{address.place}: the broker did not confirm in time")
    refused = line.translated(error)
    return refused or ConnectionLost(f"{address.place}: the connection broke before the broker confirmed")
