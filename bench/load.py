"""The sender: numbered messages over kept-alive connections, as fast as they go or at a rate."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field


@dataclass
class Sent:
    """When each message was posted and answered (monotonic seconds), and what was not 2xx."""

    posted: dict[int, float] = field(default_factory=dict)
    answered: dict[int, float] = field(default_factory=dict)
    refused: dict[int, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Target:
    """Where messages go, and how one is worded."""

    port: int
    path: str
    headers: dict[str, str]
    body: Callable[[int], dict[str, object]]

    def request(self, number: int) -> bytes:
        body = json.dumps(self.body(number)).encode()
        head = {"Host": f"127.0.0.1:{self.port}", "Content-Type": "application/json", "Content-Length": str(len(body))}
        lines = "".join(f"{name}: {value}\r\n" for name, value in (head | self.headers).items())
        return f"POST {self.path} HTTP/1.1\r\n{lines}\r\n".encode() + body


def send(target: Target, numbers: range, connections: int, rate: float | None = None) -> Sent:
    """Send each number once; with a rate (per second), message k goes out at its time whatever was answered."""
    return asyncio.run(_send(target, numbers, connections, rate))


async def _send(target: Target, numbers: range, connections: int, rate: float | None) -> Sent:
    sent, queue, began = Sent(), iter(enumerate(numbers)), time.monotonic()

    async def worker() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", target.port)
        for k, number in queue:
            if rate is not None and (ahead := began + k / rate - time.monotonic()) > 0:
                await asyncio.sleep(ahead)
            sent.posted[number] = time.monotonic()
            writer.write(target.request(number))
            status = await _answer(reader)
            sent.answered[number] = time.monotonic()
            if not 200 <= status < 300:
                sent.refused[number] = status
        writer.close()

    await asyncio.gather(*(worker() for _ in range(connections)))
    return sent


async def _answer(reader: asyncio.StreamReader) -> int:
    head = await reader.readuntil(b"\r\n\r\n")
    length = 0
    for line in head.split(b"\r\n"):
        if line.lower().startswith(b"content-length:"):
            length = int(line.split(b":", 1)[1])
    if length:
        await reader.readexactly(length)
    return int(head.split(b" ", 2)[1])
