"""A TCP proxy that can make a link bad: late, stalling, slow, silent in one direction or both, cut, refusing."""

from __future__ import annotations

import asyncio
import random
import socket
import struct
import threading
from types import TracebackType
from typing import Any, Self

UP, DOWN = "up", "down"  # towards the server, towards the client


class Proxy:
    """`with Proxy("127.0.0.1", 5432) as link: … link.port … link.blackhole() … link.heal()`.

    Bytes that a black hole swallowed are forwarded when it is healed, as TCP's retransmission does after a real
    partition: what was sent into it arrives late, not never. Set from any thread; a change holds from the next
    chunk on.
    """

    def __init__(self, host: str, port: int, seed: int = 0) -> None:
        self._target = host, port
        self._random = random.Random(seed)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxy", daemon=True)
        self._links: set[asyncio.StreamWriter] = set()
        self._silent = {UP: False, DOWN: False}
        self._stopping = False
        self.latency = 0.0  # seconds, each way
        self.jitter = 0.0  # seconds on top, at most
        self.stalls = 0.0  # share of chunks that wait `stall_seconds`, as for the retransmission of a lost packet
        self.stall_seconds = 1.0
        self.bytes_per_second: float | None = None
        self.refusing = False
        self.accepted = 0
        self.port = 0

    def __enter__(self) -> Self:
        self._thread.start()
        self.port = asyncio.run_coroutine_threadsafe(self._listen(), self._loop).result(5)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        asyncio.run_coroutine_threadsafe(self._close(), self._loop).result(5)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5)
        self._loop.close()

    # --- what can be done to the link ------------------------------------------------------------------

    def blackhole(self, *directions: str) -> None:
        """Say nothing more, in one direction or both; connections stay open and new ones are taken."""
        for direction in directions or (UP, DOWN):
            self._silent[direction] = True

    def cut(self) -> None:
        """Reset every connection, as a firewall that has forgotten them does."""
        self._loop.call_soon_threadsafe(self._reset_all)

    def heal(self) -> None:
        """A good link again."""
        self._silent = {UP: False, DOWN: False}
        self.latency = self.jitter = self.stalls = 0.0
        self.bytes_per_second = None
        self.refusing = False

    # --- the loop --------------------------------------------------------------------------------------

    async def _listen(self) -> int:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        return int(self._server.sockets[0].getsockname()[1])

    async def _close(self) -> None:
        self._stopping = True
        self._server.close()
        self._reset_all()
        others = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        if self.refusing:
            _reset(writer)
            return
        try:
            far_reader, far_writer = await asyncio.open_connection(*self._target)
        except OSError:
            _reset(writer)
            return
        ends = {writer, far_writer}
        self._links |= ends
        try:
            await asyncio.gather(self._pump(reader, far_writer, UP), self._pump(far_reader, writer, DOWN))
        except (OSError, asyncio.CancelledError):
            pass
        finally:
            self._links -= ends
            for end in ends:
                end.close()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, direction: str) -> None:
        while data := await reader.read(65536):
            await self._suffer(direction, len(data))
            writer.write(data)
            await writer.drain()
        await self._heard(direction)  # the end of a stream does not come through a black hole either
        if writer.can_write_eof():
            writer.write_eof()

    async def _suffer(self, direction: str, size: int) -> None:
        await self._heard(direction)
        pause = self.latency + self.jitter * self._random.random()
        if self.stalls and self._random.random() < self.stalls:
            pause += self.stall_seconds
        if self.bytes_per_second:
            pause += size / self.bytes_per_second
        if pause:
            await asyncio.sleep(pause)

    async def _heard(self, direction: str) -> None:
        """Wait while this direction is silent. Polled: it is set from other threads."""
        while self._silent[direction] and not self._stopping:  # noqa: ASYNC110
            await asyncio.sleep(0.02)

    def _reset_all(self) -> None:
        for writer in list(self._links):
            _reset(writer)


def _reset(writer: asyncio.StreamWriter) -> None:
    """Close with RST instead of FIN."""
    sock: Any = writer.get_extra_info("socket")
    if sock is not None:
        try:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        except OSError:
            pass
    writer.transport.abort()
