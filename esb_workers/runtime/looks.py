"""When a pump that has found nothing looks for rows again without being waked: pure.

Bells that are held keep Celery from hearing others, and for a moment after, too; and a look that finds nothing costs
less than a bell. Times are monotonic seconds.
"""

from __future__ import annotations

import math
from typing import Final

from esb_workers.runtime.pace import STEADY, STEADY_SPAN, Pace

#: For this long after its last row the pump looks by itself, this often, seconds.
ATTENTIVE: Final = 0.25
LOOK_AGAIN: Final = 0.004
#: In a steady flow it looks so often for each row, at least so many seconds apart, and holds its bells: nobody sends
#: one, and nobody waits for one.
LOOKS: Final = 6
LOOK_AT_MOST: Final = 0.0008
#: While it is told of rows it looks by itself this often, seconds; for so long after the last word, seconds.
LOOK_TOLD: Final = 0.02
TOLD_FOR: Final = 0.1
#: After a flood that rate is long in falling. Nobody looks again before this part of the time since the last row, or
#: this many seconds if that is less.
PATIENCE: Final = 0.125
LONGEST_LOOK: Final = 0.05


class Looks:
    """Of one process. `messages`: whether messages pass its pool; `asleep`: how long it sleeps at rest, seconds."""

    def __init__(self, *, messages: bool, asleep: float) -> None:
        self._asleep = asleep
        self._pace = Pace()
        # Of messages alone: runs are waked by those who wait for them, and looks would compete with their steps.
        self._flow = Pace(STEADY_SPAN, STEADY if messages else math.inf)
        self._attentive_until = 0.0
        self._told_at = 0.0
        self._told_until = 0.0  # rows are expected to be told of
        self._last_row = 0.0

    def found(self, rows: int, now: float) -> None:
        """A claim brought `rows`."""
        self._pace.note(rows, now)
        self._flow.note(rows, now)
        if self._told_at < self._last_row:  # nobody has told of these: senders are under load, though this pool is not
            self._told_until = 0.0
        self._attentive_until, self._last_row = now + ATTENTIVE, now

    def told(self, now: float) -> None:
        """Somebody has told of a row."""
        self._told_at, self._told_until = now, now + TOLD_FOR

    def loaded(self, now: float) -> bool:
        """Whether the pool is under load."""
        return self._pace.loaded(now)

    def steady(self, now: float) -> bool:
        """Whether rows come steadily: bells are held, and the pump looks by itself."""
        return self._flow.loaded(now)

    def rest(self, now: float) -> float:
        """How long to sleep now, unless waked."""
        if not self._flow.loaded(now):
            return LOOK_AGAIN if now < self._attentive_until else self._asleep
        self._attentive_until = now + ATTENTIVE
        silence = min((now - self._last_row) * PATIENCE, LONGEST_LOOK)
        longest = max(1 / (self._flow.rate(now) * LOOKS), LOOK_AT_MOST, silence)
        return max(longest, LOOK_TOLD) if now < self._told_until else longest
