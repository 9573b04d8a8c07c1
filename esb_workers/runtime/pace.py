"""How fast rows come, and whether that is load: pure."""

from __future__ import annotations

import math
from typing import Final

#: The span that the rate is a mean over, seconds; older rows count less and less.
SPAN: Final = 0.1
#: From this rate on a pool is under load, rows per second. Below it every row is looked for at once.
LOAD: Final = 320.0
#: The same for a steady flow: rows that come fast enough to be looked for rather than rung for.
STEADY_SPAN: Final = 0.5
STEADY: Final = 50.0


class Pace:
    """The rate at which one process claims rows.

    A claim of one row costs PostgreSQL as much as one of ten, and a bell costs more than both. Under load rows are
    therefore let gather for some milliseconds, and an empty claim is followed by another, not by a rest that needs a
    bell to end. Below it neither happens: there, waiting would only cost time.

    `span`: over which the rate is a mean, seconds; `limit`: from which on it is load, rows per second.
    """

    def __init__(self, span: float = SPAN, limit: float = LOAD) -> None:
        self._span = span
        self._limit = limit
        self._rate = 0.0
        self._at = 0.0

    def note(self, rows: int, now: float) -> None:
        """A claim brought `rows`. `now` is monotonic."""
        self._rate = self.rate(now) + rows / self._span
        self._at = now

    def rate(self, now: float) -> float:
        """Rows per second."""
        return self._rate * math.exp((self._at - now) / self._span)

    def loaded(self, now: float) -> bool:
        """Whether the pool is under load."""
        return self.rate(now) >= self._limit
