"""A real HTTP server on a port of its own that notes every hit; what it answers can be switched while it runs."""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self


@dataclass(frozen=True)
class Hit:
    """One request as it arrived. Header names are lower case."""

    at: float  # monotonic seconds
    method: str
    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def key(self) -> str | None:
        """The key under which a repeat of this request is the same effect."""
        return self.headers.get("idempotency-key")


@dataclass(frozen=True)
class Reply:
    """What to answer."""

    status: int = 200
    body: bytes = b"{}"
    headers: tuple[tuple[str, str], ...] = ()
    delay: float = 0.0

    @classmethod
    def json(cls, value: Any, status: int = 200) -> Reply:
        return cls(status, json.dumps(value).encode())


class Receiver:
    """`with Receiver() as receiver: … receiver.url … receiver.hits`."""

    def __init__(self, port: int = 0) -> None:
        self.hits: list[Hit] = []
        self.answer: Callable[[Hit], Reply] = lambda hit: Reply()
        self.note: Callable[[Hit, Reply], None] = lambda hit, reply: None  # called before the answer goes out
        self._server = _Server(("127.0.0.1", port), _handler(self))
        self.port = int(self._server.server_address[1])
        self.url = f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()

    def effects(self) -> Counter[str]:
        """Hits by idempotency key: what is above one was sent again."""
        return Counter(hit.key or "" for hit in self.hits)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A caller that was killed in the middle of a call is what drills are about."""


def _handler(receiver: Receiver) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def _serve(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            headers = {name.lower(): value for name, value in self.headers.items()}
            hit = Hit(time.monotonic(), self.command, self.path, headers, self.rfile.read(length))
            receiver.hits.append(hit)
            reply = receiver.answer(hit)
            receiver.note(hit, reply)
            if reply.delay:
                time.sleep(reply.delay)
            self.send_response(reply.status)
            for name, value in (("Content-Type", "application/json"), *reply.headers):
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(reply.body)))
            self.end_headers()
            self.wfile.write(reply.body)

        do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = _serve  # noqa: N815  (named by http.server)

        def log_message(self, *args: Any) -> None:
            pass

    return Handler
