"""What slots begin with, and which of them are waked for it."""

from __future__ import annotations

import queue as queues
import time
from collections import deque
from collections.abc import Collection
from typing import Final, Generic, TypeVar

T = TypeVar("T")

#: How long tasks wait for slots that are awake before further ones are woken, seconds.
RAMP: Final = 0.001


class TaskQueue(Generic[T]):
    """Tasks in order. Safe for threads."""

    def __init__(self) -> None:
        self.tasks: deque[T] = deque()
        self._tokens: queues.SimpleQueue[bool] = queues.SimpleQueue()  # each wakes one slot; False: for good

    def put(self, tasks: Collection[T]) -> None:
        """Add tasks, and wake a slot for each at once."""
        self.tasks.extend(tasks)
        for _ in tasks:
            self._tokens.put(True)

    def put_gently(self, tasks: Collection[T]) -> None:
        """Add tasks, and wake one slot, and twice as many every RAMP for as long as some are not taken.

        Where calls are quick, one or two slots do them one after the other, which costs half of what it costs to have
        a thread wake for each and all of them wait for the interpreter; where they are slow, a few milliseconds later
        every task has a slot.
        """
        self.tasks.extend(tasks)
        woken, more = 0, 1
        while self.tasks and woken < len(tasks):
            if woken:
                time.sleep(RAMP)
            for _ in range(more):
                self._tokens.put(True)
            woken += more
            more *= 2

    def take(self) -> T | None:
        """The next task, waited for; None when the slot is to end."""
        while True:
            try:
                return self.tasks.popleft()
            except IndexError:
                if not self._tokens.get():
                    return None

    def end(self, slots: int) -> None:
        """So many slots are to end when nothing is left to do."""
        for _ in range(slots):
            self._tokens.put(False)
