"""Cuts connections whose time is up, whatever library reads from them.

Clients of brokers bound each read, not the whole: a peer that sends a byte a second is waited for without end. So one
thread shuts a connection down at its deadline, and whoever reads from it finds it closed.
"""

from __future__ import annotations

import heapq
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field


@dataclass(order=True)
class Watch:
    """One connection under watch. `fired`: its time was up, and it has been cut."""

    deadline: float
    sock: socket.socket = field(compare=False)
    done: bool = field(default=False, compare=False)
    fired: bool = field(default=False, compare=False)


class Deadlines:
    """The watch over connections. One a process; safe for threads."""

    def __init__(self) -> None:
        self._heap: list[Watch] = []
        self._done = 0  # how many of them are over already: swept out when they are the larger part
        self._condition = threading.Condition()
        self._thread: threading.Thread | None = None

    @contextmanager
    def watch(self, sock: socket.socket, deadline: float) -> Iterator[Watch]:
        """Inside the block, `sock` is shut down at `deadline` (`time.monotonic`)."""
        watch = Watch(deadline, sock)
        with self._condition:
            heapq.heappush(self._heap, watch)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="deadlines", daemon=True)
                self._thread.start()
            if self._heap[0] is watch:
                self._condition.notify()
        try:
            yield watch
        finally:
            with self._condition:  # so that it is not cut any more once the block has been left
                watch.done = True
                self._done += 1
                if self._done > 100 and self._done * 2 > len(self._heap):
                    self._heap = [one for one in self._heap if not one.done]
                    heapq.heapify(self._heap)
                    self._done = 0

    def _run(self) -> None:
        with self._condition:
            while True:
                while self._heap and (self._heap[0].done or self._heap[0].deadline <= time.monotonic()):
                    self._cut(heapq.heappop(self._heap))
                left = self._heap[0].deadline - time.monotonic() if self._heap else None
                self._condition.wait(left if left is None else max(0.0, left))

    def _cut(self, watch: Watch) -> None:
        if not watch.done:
            watch.fired = True
            try:
                watch.sock.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass  # closed already
