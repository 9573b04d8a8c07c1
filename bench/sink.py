"""The receiver both peers deliver to: answers at once and notes when each numbered message first arrived.

Run as a process of its own, `python -m bench.sink PORT_FILE`. `GET /figures` answers what has arrived, and at which path.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from pathlib import Path
from typing import ClassVar

OK = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"


class Sink(asyncio.Protocol):
    """One connection. Understands just what HTTP/1.1 clients send with a Content-Length."""

    arrivals: ClassVar[dict[int, float]] = {}
    paths: ClassVar[dict[int, str]] = {}
    hits = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        self.buffer = b""

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        while (end := self.buffer.find(b"\r\n\r\n")) >= 0:
            head = self.buffer[:end].lower()
            length = 0
            if (at := head.find(b"\r\ncontent-length:")) >= 0:
                length = int(head[at + 17 :].split(b"\r\n", 1)[0])
            if len(self.buffer) < end + 4 + length:
                return
            body, self.buffer = self.buffer[end + 4 : end + 4 + length], self.buffer[end + 4 + length :]
            self.answer(head, body)

    def answer(self, head: bytes, body: bytes) -> None:
        cls = type(self)
        if head.startswith(b"get /figures"):
            text = json.dumps({"hits": cls.hits, "arrivals": cls.arrivals, "paths": cls.paths}).encode()
            self.transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(text) + text)  # type: ignore[attr-defined]
            return
        if head.startswith(b"get /count"):
            text = str(len(cls.arrivals)).encode()
            self.transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(text) + text)  # type: ignore[attr-defined]
            return
        if head.startswith(b"delete "):
            cls.arrivals, cls.paths, cls.hits = {}, {}, 0
        else:
            cls.hits += 1
            number = json.loads(body)["n"]
            cls.arrivals.setdefault(number, time.monotonic())
            cls.paths.setdefault(number, head.split(b" ", 2)[1].decode())
        self.transport.write(OK)  # type: ignore[attr-defined]


async def main(port_file: Path) -> None:
    server = await asyncio.get_running_loop().create_server(Sink, "127.0.0.1", 0)
    port_file.write_text(  # noqa: ASYNC240  (once, before the first connection)
        str(server.sockets[0].getsockname()[1])
    )
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))
