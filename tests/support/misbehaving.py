"""A destination that behaves badly in one chosen way, until it is told to behave."""

from __future__ import annotations

import json
import socket
import struct
import threading
import time
import zlib
from collections.abc import Callable
from functools import lru_cache
from types import TracebackType
from typing import Any, Self

OK = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"


@lru_cache(maxsize=1)
def _bomb() -> bytes:
    """200 MB of zeros, a thousandth of that when packed."""
    packer = zlib.compressobj(9, wbits=zlib.MAX_WBITS | 16)
    return b"".join([*(packer.compress(bytes(1 << 20)) for _ in range(200)), packer.flush()])


class Misbehaving:
    """`with Misbehaving("silent") as server: … server.url … server.behave()`.

    Ways: slowloris (a byte of the head each 0.3 s), silent (never answers), reset (RST instead of an answer),
    late (answers after 30 s), flood (a body without end), bomb (gzip that unfolds a thousandfold), headers (without
    end), redirect (307 to `location`).
    """

    def __init__(self, way: str, *, location: str = "", host: str = "127.0.0.1", port: int = 0) -> None:
        self.way = way
        self.location = location
        self.requests = 0
        self.note: Callable[[dict[str, str], bytes, int], None] = lambda headers, body, status: None
        self._behaves = threading.Event()
        self._closing = threading.Event()
        self._listener = socket.create_server((host, port), backlog=128)
        self.port = int(self._listener.getsockname()[1])
        self.url = f"http://{host}:{self.port}"

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closing.set()
        self._behaves.set()
        self._listener.close()

    def behave(self) -> None:
        """From now on answer 200 at once; whoever still waits for a late answer is hung up on."""
        self._behaves.set()

    def _accept(self) -> None:
        while True:
            try:
                peer, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(peer,), daemon=True).start()

    def _serve(self, peer: socket.socket) -> None:
        with peer:
            peer.settimeout(60)
            stream = peer.makefile("rb")
            try:
                while request := _read(stream):
                    self.requests += 1
                    good = self._behaves.is_set()
                    sends_ok = good or self.way in ("flood", "bomb")
                    self.note(*request, 200 if sends_ok else 0)
                    if not good:
                        getattr(self, f"_{self.way}")(peer)
                        return
                    peer.sendall(OK)
            except (OSError, ValueError):
                return

    # --- the ways ------------------------------------------------------------------------------------

    def _wait(self, seconds: float) -> bool:
        """Whether the time has passed without a change of manners."""
        return not self._behaves.wait(seconds)

    def _slowloris(self, peer: socket.socket) -> None:
        for byte in OK * 10:
            peer.sendall(bytes([byte]))
            if not self._wait(0.3):
                return

    def _silent(self, peer: socket.socket) -> None:
        self._wait(60)

    def _reset(self, peer: socket.socket) -> None:
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    def _late(self, peer: socket.socket) -> None:
        if self._wait(30):
            peer.sendall(OK)

    def _flood(self, peer: socket.socket) -> None:
        peer.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 10737418240\r\n\r\n")
        block = b"x" * 65536
        for _ in range(10737418240 // len(block)):
            peer.sendall(block)

    def _bomb(self, peer: socket.socket) -> None:
        body = _bomb()
        peer.sendall(b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(body) + body)

    def _headers(self, peer: socket.socket) -> None:
        peer.sendall(b"HTTP/1.1 200 OK\r\n")
        number = 0
        until = time.monotonic() + 30
        while time.monotonic() < until:
            number += 1
            peer.sendall(b"".join(b"X-Endless-%d-%d: %s\r\n" % (number, i, b"y" * 200) for i in range(50)))

    def _redirect(self, peer: socket.socket) -> None:
        peer.sendall(
            f"HTTP/1.1 307 Temporary Redirect\r\nLocation: {self.location}\r\nContent-Length: 0\r\n\r\n".encode()
        )


def _read(stream: Any) -> tuple[dict[str, str], bytes] | None:
    if not stream.readline():
        return None
    headers: dict[str, str] = {}
    while (line := stream.readline().decode("latin-1").strip()) != "":
        name, _, value = line.partition(":")
        headers[name.lower()] = value.strip()
    return headers, stream.read(int(headers.get("content-length", "0")))


def number_in(body: bytes) -> int:
    """The number of a drill's message."""
    return int(json.loads(body)["n"])
