"""The example services of the demo: small HTTP servers that answer and remember what reached them."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Call:
    """One request that reached a service."""

    path: str
    message_type: str
    correlation_id: str
    idempotency_key: str
    body: Any


@dataclass(frozen=True, slots=True)
class Answer:
    """What a service answers."""

    status: int
    body: Json


Behaviour = Callable[[Call, int], Answer]


def accepts(call: Call, number: int) -> Answer:
    """The plain behaviour: everything is well."""
    return Answer(200, {"received": True})


class ExampleService:
    """One service on a free port of 127.0.0.1. `behaviour` gets each call and its number, from 1."""

    def __init__(self, name: str, behaviour: Behaviour = accepts) -> None:
        self.name = name
        self.calls: list[Call] = []
        self._behaviour = behaviour
        self._lock = threading.Lock()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._server.daemon_threads = True
        self.endpoint = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), name=name, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def handle(self, call: Call) -> Answer:
        """Remember the call, and answer it."""
        with self._lock:
            self.calls.append(call)
            number = len(self.calls)
        return self._behaviour(call, number)


def _handler(service: ExampleService) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def do_GET(self) -> None:
            self._answer(Answer(200, {"status": "healthy"}))

        def do_POST(self) -> None:
            raw = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            self._answer(service.handle(self._call(raw)))

        def _call(self, raw: bytes) -> Call:
            header = self.headers.get
            return Call(
                path=self.path,
                message_type=header("ce-type", ""),
                correlation_id=header("X-Correlation-ID", ""),
                idempotency_key=header("Idempotency-Key", ""),
                body=json.loads(raw) if raw else None,
            )

        def _answer(self, answer: Answer) -> None:
            body = json.dumps(answer.body).encode()
            self.send_response(answer.status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002  the name is the base class's
            """The demo tells its own story."""

    return Handler
