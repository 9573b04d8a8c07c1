"""The circuit of an instance: when it opens, for how long, and who may try it again. Pure.

Counts are kept by each process in memory; what they lead to is decided once, by compare-and-set in the store.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Final, Literal

CircuitState = Literal["closed", "open", "half_open"]

FAILURES_IN_A_ROW: Final = 5
WINDOW_SECONDS: Final = 30.0
WINDOW_ATTEMPTS: Final = 10
WINDOW_SHARE: Final = 0.5
FIRST_PAUSE_SECONDS: Final = 10.0
LONGEST_PAUSE_SECONDS: Final = 300.0
_MOST_REMEMBERED: Final = 1000


@dataclass(slots=True)
class Window:
    """The latest attempts at one instance, as this process saw them."""

    in_a_row: int = 0
    attempts: deque[tuple[float, bool]] = field(default_factory=lambda: deque(maxlen=_MOST_REMEMBERED))

    def record(self, ok: bool, at: float) -> bool:
        """Note an attempt (`at`: seconds on any clock that only goes forward); whether the circuit opens by it.

        It does at 5 failures in a row, or when of at least 10 attempts in 30 s half failed.
        """
        self.in_a_row = 0 if ok else self.in_a_row + 1
        self.attempts.append((at, ok))
        while self.attempts and self.attempts[0][0] <= at - WINDOW_SECONDS:
            self.attempts.popleft()
        return not ok and (self.in_a_row >= FAILURES_IN_A_ROW or self._half_failed())

    def clear(self) -> None:
        """Begin anew, as after the circuit has changed."""
        self.in_a_row = 0
        self.attempts.clear()

    def _half_failed(self) -> bool:
        failed = sum(not ok for _, ok in self.attempts)
        return len(self.attempts) >= WINDOW_ATTEMPTS and failed >= WINDOW_SHARE * len(self.attempts)


def pause_seconds(opens: int) -> float:
    """How long the circuit stays open at its `opens`-th opening in a row (from 1)."""
    return min(FIRST_PAUSE_SECONDS * 2.0 ** min(opens - 1, 30), LONGEST_PAUSE_SECONDS)


@dataclass(frozen=True, slots=True)
class Circuit:
    """A circuit as stored. `until`: the end of the pause while open, of the probe's lease while half open."""

    state: CircuitState = "closed"
    opens: int = 0
    until: float = 0.0

    def takes_probe(self, now: float) -> bool:
        """Whether one delivery may try: the pause is over, or the last who tried has not come back."""
        return self.state != "closed" and self.until <= now

    def opened(self, now: float) -> Circuit:
        """After too many failures, or a probe that failed: open for twice as long as the last time."""
        return Circuit("open", self.opens + 1, now + pause_seconds(self.opens + 1))

    def probing(self, now: float, lease: float) -> Circuit:
        """While one delivery tries; after `lease` seconds another may."""
        return Circuit("half_open", self.opens, now + lease)

    def closed(self) -> Circuit:
        """After a probe that went well."""
        return Circuit()
