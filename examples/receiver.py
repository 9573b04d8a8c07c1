"""A service for the examples: remembers what arrives, and answers as it is told."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from esb_api.client import Client

Answer = tuple[int, Any]


def connect() -> Client:
    """The bus of ESB_URL and ESB_API_KEY; without a key, the one `esb up` keeps in its data directory."""
    kept = Path(os.environ.get("ESB_DATA_DIR", ".esb")) / "admin-key"
    key = os.environ.get("ESB_API_KEY") or (kept.read_text().strip() if kept.exists() else None)
    return Client(os.environ.get("ESB_URL", "http://127.0.0.1:8080"), key)


class Service:
    """An HTTP server on a free port. `calls` holds (path, headers, body); `answer(path, body)` makes the answer."""

    def __init__(self, answer: Callable[[str, Any], Answer] = lambda path, body: (200, {})) -> None:
        self.calls: list[tuple[str, dict[str, str], Any]] = []
        self.answer = answer
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()


def _handler(service: Service) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            raw = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            body = json.loads(raw) if raw else None
            service.calls.append((self.path, dict(self.headers.items()), body))
            status, answer = service.answer(self.path, body)
            text = json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        def log_message(self, *_: object) -> None:
            pass

    return Handler
