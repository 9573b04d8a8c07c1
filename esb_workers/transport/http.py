"""Calls over HTTP: one deadline over all of an attempt, bounded answers, connections kept.

Why not `requests.Session.post`: its time-out is per read (a peer that sends a byte a second is waited for
without end), it has no limit on the answer, and it costs several times the CPU. Its types are kept at the
edge: the adapter in `transport.adapter` takes a `requests.PreparedRequest` and answers a `requests.Response`.
"""

from __future__ import annotations

import http.client
import ssl
import threading
import time
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import certifi
from requests.structures import CaseInsensitiveDict
from tenacity import Retrying, retry_if_exception_type, stop_after_attempt, stop_after_delay, wait_random

from esb_workers.transport import request as wire
from esb_workers.transport.address import AddressGuard, Lookup, Resolver
from esb_workers.transport.answer import Answer, read_body
from esb_workers.transport.connection import HEAD_BUDGET, Connection, OverBudget, Pool, connect
from esb_workers.transport.errors import CallFailed, ConnectFailed, ConnectionLost, ProtocolError, Timeout
from esb_workers.transport.letterhead import Letter
from esb_workers.transport.request import Origin
from esb_workers.transport.whole import Whole

#: How much of an answer's body is kept by default, decoded bytes.
MAX_BODY = 64 * 1024

#: What is sent without waiting: so many bytes fit into a socket's buffer, and a connection that takes longer to open is
#: left to those who can wait, seconds.
AT_ONCE = 32 * 1024
PROMPTLY = 0.05

Headers = Mapping[str, str] | Iterable[tuple[str, str]]


class Response(NamedTuple):
    """An answer. `body` is decoded and cut at the call's limit; `truncated` says that it was cut.

    `resent`: the request went out twice, for the kept connection it went out on first closed without an answer.
    """

    status: int
    headers: CaseInsensitiveDict[str]
    body: bytes
    duration_ms: int
    truncated: bool = False
    reason: str = ""
    resent: bool = False


class _Stale(Exception):
    """A kept connection closed before a byte of the answer: almost surely nobody has worked on the request."""


class HttpCaller:
    """Makes calls. One per process; safe for threads."""

    def __init__(self, guard: AddressGuard, *, tls: ssl.SSLContext | None = None, lookup: Lookup | None = None) -> None:
        self._resolver = Resolver(guard, lookup)
        self._pool = Pool()
        self._tls = tls
        self._tls_lock = threading.Lock()

    def call(
        self,
        method: str,
        url: str,
        headers: Headers = (),
        body: bytes = b"",
        timeout_ms: int = 10_000,
        max_body: int = MAX_BODY,
    ) -> Response:
        """One attempt, at most `timeout_ms` long in all; redirects are answers like any other.

        Raises a CallFailed: RequestRefused, AddressRefused, ConnectFailed, TlsFailed, ConnectionLost,
        ProtocolError or Timeout.
        """
        started = time.monotonic()
        deadline = started + timeout_ms / 1000
        target = wire.parse_url(url)
        pairs = headers.items() if isinstance(headers, Mapping) else headers
        data = wire.head(method, target, pairs, body) + body
        exchange = _Exchange(method, data, timeout_ms / 1000, max_body, deadline)
        kept, resent = self._pool.take(target.origin), False
        try:
            raw, content, truncated = exchange.run(kept or self._connect(target.origin, deadline), self._pool)
        except _Stale:
            raw, content, truncated = self._again(exchange, target.origin)
            resent = True
        return _response(raw, content, started, truncated=truncated, resent=resent)

    def ready(
        self, method: str, url: str, headers: Headers, body: bytes, timeout_ms: int, max_body: int = MAX_BODY
    ) -> Call | None:
        """A call whose request can be sent without waiting for the answer; None if sending itself could take long.

        That is so with TLS, and with much to send. Raises a CallFailed.
        """
        target = wire.parse_url(url)
        pairs = headers.items() if isinstance(headers, Mapping) else headers
        head = wire.head(method, target, pairs, body)
        return self.post(Letter(target.origin, method, head, body), timeout_ms, max_body)

    def post(self, letter: Letter, timeout_ms: int, max_body: int = MAX_BODY) -> Call | None:
        """The same for a request that is bytes already."""
        if letter.origin.scheme != "http" or len(letter.body) > AT_ONCE:
            return None
        exchange = _Exchange(letter.method, letter.head + letter.body, timeout_ms / 1000, max_body)
        return Call(self, letter.origin, exchange)

    def connection(self, origin: Origin) -> Connection | None:
        """A connection that is open, or opens at once."""
        return self._pool.take(origin) or self._connect_at_once(origin)

    def end(self, call: Call, connection: Connection) -> Response:
        """Wait for the answer to what was sent. Raises a CallFailed."""
        resent = False
        try:
            raw, content, truncated = call.exchange.receive(connection, self._pool)
        except _Stale:
            raw, content, truncated = self._again(call.exchange, call.origin)
            resent = True
        return _response(raw, content, call.started, truncated=truncated, resent=resent)

    def keep(self, connection: Connection, *, usable: bool) -> None:
        """Have a connection whose call has ended for the next one, if it can serve one."""
        _done_with(connection, self._pool, keep=usable)

    def forget(self, origin: Origin) -> None:
        """The peer was restarted: its other connections are gone too."""
        self._pool.forget(origin)

    def _again(self, exchange: _Exchange, origin: Origin) -> tuple[Answer | Whole, bytes, bool]:
        self.forget(origin)
        try:
            return exchange.run(self._connect(origin, exchange.deadline), self._pool)
        except CallFailed as error:
            error.resent = True
            raise

    def _connect_at_once(self, origin: Origin) -> Connection | None:
        try:
            return self._connect(origin, time.monotonic() + PROMPTLY, tries=1)
        except CallFailed:
            return None  # whoever takes the time for it will see

    def reach(self, host: str, port: int, timeout_ms: int) -> int:
        """Open a TCP connection and close it again; milliseconds it took. Raises as `call`."""
        started = time.monotonic()
        self._connect(Origin("tcp", host, port), started + timeout_ms / 1000).close()
        return round((time.monotonic() - started) * 1000)

    def close(self) -> None:
        """Close the kept connections. The caller can still be used."""
        self._pool.forget()

    def _connect(self, origin: Origin, deadline: float, tries: int = 2) -> Connection:
        """A new connection; with one more try when it fails, since a server that restarts refuses for a moment."""
        tls = self._tls_context() if origin.scheme == "https" else None

        def once() -> Connection:
            return connect(origin, self._resolver.resolve(origin.host, origin.port, deadline), tls, deadline)

        retrying = Retrying(
            stop=stop_after_attempt(tries) | stop_after_delay(1),
            wait=wait_random(0.05, 0.2),
            retry=retry_if_exception_type(ConnectFailed),
            sleep=lambda seconds: time.sleep(max(0.0, min(seconds, deadline - time.monotonic()))),
            reraise=True,
        )
        return retrying(once)

    def _tls_context(self) -> ssl.SSLContext:
        with self._tls_lock:
            if self._tls is None:
                # The system's authorities (with private ones) and certifi's, for images that have none.
                context = ssl.create_default_context()
                context.load_verify_locations(certifi.where())
                context.set_alpn_protocols(["http/1.1"])
                self._tls = context
            return self._tls


@dataclass(slots=True)
class Call:
    """A request that is sent without waiting, and its answer: see `HttpCaller.ready`. Used by one thread at a time.

    `partial`: a part of the answer has come, and it may be whole soon. `answer`: it has come, and the connection is
    another's.
    """

    caller: HttpCaller
    origin: Origin
    exchange: _Exchange
    connection: Connection | None = None
    started: float = 0.0
    partial: bool = False
    answer: Response | None = None

    @property
    def ended(self) -> bool:
        """Whether the answer is there."""
        return self.answer is not None

    def send(self) -> bool:
        """Send the request; from now on its time counts. False where that could take long: nothing is sent.

        Raises a CallFailed.
        """
        self.started = time.monotonic()
        connection = self.caller.connection(self.origin)
        if connection is None:
            return False
        self.exchange.deadline = self.started + self.exchange.seconds
        self.connection = connection
        try:
            self.exchange.send(connection)
        except _Stale:
            self.caller.forget(self.origin)
            return False
        return True

    def fileno(self) -> int:
        """The socket's."""
        assert self.connection is not None
        return self.connection.fileno()

    def receive(self) -> None:
        """Take in what has come, without waiting. What is no plain answer is read by who waits for it."""
        connection, exchange = self.connection, self.exchange
        assert connection is not None
        try:
            found, self.partial = connection.read_whole(exchange.method, exchange.max_body, wait=False)
        except (OSError, OverBudget):
            self.partial = False  # whoever waits for it is told
            return
        if found is not None:
            self.caller.keep(connection, usable=not found.will_close)
            self.answer = _response(found, found.body, self.started)

    def result(self) -> Response:
        """The answer, waited for if need be. Raises a CallFailed."""
        if self.answer is None:  # else asked once more, by whom an error kept from recording it
            assert self.connection is not None
            self.answer = self.caller.end(self, self.connection)
        return self.answer


@dataclass(slots=True)
class _Exchange:
    """One request sent and its answer read, on whichever connection, within `seconds` that end at `deadline`."""

    method: str
    data: bytes
    seconds: float
    max_body: int
    deadline: float = 0.0

    def run(self, connection: Connection, pool: Pool) -> tuple[Answer | Whole, bytes, bool]:
        self.send(connection)
        return self.receive(connection, pool)

    def send(self, connection: Connection) -> None:
        """Send the request; the connection is closed when that fails."""
        try:
            connection.start(self.deadline, 2 * self.max_body + HEAD_BUDGET)
            connection.send(self.data, self.deadline)
        except BaseException as error:
            if isinstance(error, (BrokenPipeError, ConnectionResetError)) and not connection.reused:
                return  # a peer that refuses a large body answers and hangs up without reading it all: that counts
            connection.close()
            if isinstance(error, TimeoutError):
                raise Timeout from error
            if isinstance(error, OSError):
                raise _lost(connection) from error
            raise

    def receive(self, connection: Connection, pool: Pool) -> tuple[Answer | Whole, bytes, bool]:
        """Read the answer; the connection is kept if it can serve another call."""
        keep = False
        try:
            raw = self._head(connection)
            if isinstance(raw, Whole):
                keep = not raw.will_close
                return raw, raw.body, False
            body, truncated = read_body(raw, self.max_body)
            keep = not truncated and raw.isclosed() and not raw.will_close
            return raw, body, truncated
        except CallFailed:
            raise  # these are OSErrors too, as every exception of requests is
        except TimeoutError as error:
            raise Timeout from error
        except http.client.IncompleteRead as error:
            raise ConnectionLost from error
        except (http.client.HTTPException, OverBudget, UnicodeError, ValueError, zlib.error) as error:
            raise ProtocolError(_told(error)) from error
        except OSError as error:
            raise ConnectionLost from error
        finally:
            _done_with(connection, pool, keep=keep)

    def _head(self, connection: Connection) -> Answer | Whole:
        try:
            raw = self._whole(connection) or connection.read_head(self.method)
        except (TimeoutError, CallFailed):
            raise
        except (OSError, http.client.RemoteDisconnected) as error:
            raise _lost(connection) from error
        if raw.status == 101:
            raise ProtocolError("the peer switched to another protocol unasked")
        return raw

    def _whole(self, connection: Connection) -> Whole | None:
        while True:
            found, more = connection.read_whole(self.method, self.max_body)
            if not more:
                return found


def _lost(connection: Connection) -> Exception:
    return _Stale() if connection.reused and not connection.answered else ConnectionLost()


def _done_with(connection: Connection, pool: Pool, *, keep: bool) -> None:
    if keep:
        connection.finish()
        pool.give(connection)
    else:
        connection.close()


def _response(
    raw: Answer | Whole, content: bytes, started: float, *, truncated: bool = False, resent: bool = False
) -> Response:
    took = round((time.monotonic() - started) * 1000)
    return Response(raw.status, raw.headers, content, took, truncated, raw.reason, resent)


def _told(error: Exception) -> str:
    if isinstance(error, OverBudget):
        return "the answer's headers or framing are too large"
    if isinstance(error, zlib.error):
        return "the answer's content encoding cannot be undone"
    return f"the answer is not HTTP that can be read: {str(error)[:200]}"
