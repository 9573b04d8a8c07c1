"""Rows that a process has claimed ahead of the slots that will start them, by lane; pure.

A claim costs PostgreSQL nearly the same for ten rows as for a hundred. Lanes whose calls are proven quick (see
runtime.windows) therefore have more rows claimed than slots are free, and a few slots go on with them, several at a
time, lanes in turn. Who waits here is bounded in number, and is given back as soon as its lane is quick no more.
"""

from __future__ import annotations

from collections import deque
from typing import Final, Generic, TypeVar

T = TypeVar("T")

#: How many rows of one lane, and of all, are held ahead at most: what a process does in some 60 ms.
LANE_DEPTH: Final = 256
DEPTH: Final = 384
#: More rows are claimed ahead only when no more than this many are left, so that few claims take many.
LOW: Final = 128


class Ahead(Generic[T]):
    """The rows. Not thread-safe: the caller holds a lock."""

    def __init__(self, depth: int = DEPTH) -> None:
        self._depth = depth
        self._rows: dict[int, deque[T]] = {}
        self.count = 0

    @property
    def low(self) -> bool:
        """Whether it is time for more."""
        return self.count <= min(LOW, self._depth // 2)

    @property
    def room(self) -> int:
        """How many rows may be added in all."""
        return max(0, self._depth - self.count)

    def room_in(self, lane: int) -> int:
        """How many rows of this lane may be added."""
        return max(0, min(LANE_DEPTH, self._depth) - len(self._rows.get(lane, ())))

    def lanes(self) -> list[int]:
        """The lanes that have rows here, in turn."""
        return list(self._rows)

    def put(self, lane: int, row: T) -> None:
        """Add a row behind the others of its lane."""
        self._rows.setdefault(lane, deque()).append(row)
        self.count += 1

    def take(self, lane: int, most: int) -> list[T]:
        """The next rows of this lane, now the caller's. If more of them are left, it goes behind the other lanes."""
        rows = self._rows.get(lane)
        if rows is None or most <= 0:
            return []
        taken = [rows.popleft() for _ in range(min(most, len(rows)))]
        self.count -= len(taken)
        del self._rows[lane]
        if rows:
            self._rows[lane] = rows
        return taken

    def drop(self, lane: int) -> list[T]:
        """All rows of this lane, which are to be given back."""
        rows = self._rows.pop(lane, deque())
        self.count -= len(rows)
        return list(rows)
