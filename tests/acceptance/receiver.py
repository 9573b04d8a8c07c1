"""A receiver for walks outside the test suite: takes deliveries slowly, and says how many and how often.

python receiver.py PORT [DELAY_SECONDS]; `GET /` answers `{"calls": n, "ids": n}`: ids are distinct webhook-ids.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

seen: dict[str, int] = {}
lock = threading.Lock()
delay = float(sys.argv[2]) if len(sys.argv) > 2 else 0.05


class Receiver(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        time.sleep(delay)  # long enough for a kill to hit calls under way
        with lock:
            name = self.headers.get("webhook-id", "")
            seen[name] = seen.get(name, 0) + 1
        self._answer({})

    def do_GET(self) -> None:
        with lock:
            self._answer({"calls": sum(seen.values()), "ids": len(seen)})

    def _answer(self, body: object) -> None:
        text = json.dumps(body).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *_: object) -> None:
        pass


ThreadingHTTPServer(("0.0.0.0", int(sys.argv[1])), Receiver).serve_forever()
