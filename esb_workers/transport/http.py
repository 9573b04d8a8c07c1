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

import certifi
from requests.structures import CaseInsensitiveDict
from tenacity import Retrying, retry_if_exception_type, stop_after_attempt, stop_after_delay, wait_random

from esb_workers.transport import request as wire
from esb_workers.transport.address import AddressGuard, Lookup, Resolver
from esb_workers.transport.answer import Answer, read_body
from esb_workers.transport.connection import HEAD_BUDGET, Connection, OverBudget, Pool, connect
from esb_workers.transport.errors import CallFailed, ConnectFailed, ConnectionLost, ProtocolError, Timeout
from esb_workers.transport.request import Origin
from esb_workers.transport.whole import Whole

#: How much of an answer's body is kept by default, decoded bytes.
MAX_BODY = 64 * 1024

Headers = Mapping[str, str] | Iterable[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class Response:
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
        exchange = _Exchange(method, data, deadline, max_body)
        kept, resent = self._pool.take(target.origin), False
        try:
            raw, content, truncated = exchange.run(kept or self._connect(target.origin, deadline), self._pool)
        except _Stale:
            self._pool.forget(target.origin)  # the peer was restarted: its other connections are gone too
            resent = True
            try:
                raw, content, truncated = exchange.run(self._connect(target.origin, deadline), self._pool)
            except CallFailed as error:
                error.resent = True
                raise
        took = round((time.monotonic() - started) * 1000)
        return Response(raw.status, raw.headers, content, took, truncated, raw.reason, resent)

    def reach(self, host: str, port: int, timeout_ms: int) -> int:
        """Open a TCP connection and close it again; milliseconds it took. Raises as `call`."""
        started = time.monotonic()
        self._connect(Origin("tcp", host, port), started + timeout_ms / 1000).close()
        return round((time.monotonic() - started) * 1000)

    def close(self) -> None:
        """Close the kept connections. The caller can still be used."""
        self._pool.forget()

    def _connect(self, origin: Origin, deadline: float) -> Connection:
        """A new connection; one more try when it fails, since a server that restarts refuses for a moment."""
        tls = self._tls_context() if origin.scheme == "https" else None

        def once() -> Connection:
            return connect(origin, self._resolver.resolve(origin.host, origin.port, deadline), tls, deadline)

        retrying = Retrying(
            stop=stop_after_attempt(2) | stop_after_delay(1),
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


@dataclass(frozen=True, slots=True)
class _Exchange:
    """One request sent and its answer read, on whichever connection."""

    method: str
    data: bytes
    deadline: float
    max_body: int

    def run(self, connection: Connection, pool: Pool) -> tuple[Answer | Whole, bytes, bool]:
        keep = False
        try:
            connection.start(self.deadline, 2 * self.max_body + HEAD_BUDGET)
            raw = self._answer(connection)
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
            if keep:
                connection.finish()
                pool.give(connection)
            else:
                connection.close()

    def _answer(self, connection: Connection) -> Answer | Whole:
        try:
            self._send(connection)
            raw = connection.read_whole(self.method, self.max_body) or connection.read_head(self.method)
        except (TimeoutError, CallFailed):
            raise
        except (OSError, http.client.RemoteDisconnected) as error:
            if connection.reused and not connection.answered:
                raise _Stale from error
            raise ConnectionLost from error
        if raw.status == 101:
            raise ProtocolError("the peer switched to another protocol unasked")
        return raw

    def _send(self, connection: Connection) -> None:
        try:
            connection.send(self.data, self.deadline)
        except (BrokenPipeError, ConnectionResetError):
            # A peer that refuses a large body answers and hangs up without reading it all: its answer counts.
            if connection.reused:
                raise


def _told(error: Exception) -> str:
    if isinstance(error, OverBudget):
        return "the answer's headers or framing are too large"
    if isinstance(error, zlib.error):
        return "the answer's content encoding cannot be undone"
    return f"the answer is not HTTP that can be read: {str(error)[:200]}"
