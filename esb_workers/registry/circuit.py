"""The circuit of an instance: when it opens, for how long, and who may try it again. Pure.

What each process has seen is added up in the store; what it leads to is decided once, by compare-and-set there.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

CircuitState = Literal["closed", "open", "half_open"]

FAILURES_IN_A_ROW: Final = 5
WINDOW_SECONDS: Final = 30.0
WINDOW_ATTEMPTS: Final = 10
WINDOW_SHARE: Final = 0.5
FIRST_PAUSE_SECONDS: Final = 10.0
LONGEST_PAUSE_SECONDS: Final = 300.0


@dataclass(slots=True)
class Tally:
    """Attempts at one instance as one process saw them, in their order, since it last reported."""

    ok: int = 0
    failed: int = 0
    trailing: int = 0  # failures after the last that was ok

    def add(self, ok: bool) -> None:
        """Note an attempt."""
        if ok:
            self.ok += 1
            self.trailing = 0
        else:
            self.failed += 1
            self.trailing += 1


@dataclass(frozen=True, slots=True)
class Figures:
    """Attempts at one instance as all processes saw them: failures in a row, and both kinds in the window."""

    in_a_row: int
    ok: int
    failed: int

    def opens(self) -> bool:
        """Whether the circuit is to open: 5 failures in a row, or half of at least 10 attempts in 30 s."""
        many = self.ok + self.failed >= WINDOW_ATTEMPTS
        return self.in_a_row >= FAILURES_IN_A_ROW or (many and self.failed >= WINDOW_SHARE * (self.ok + self.failed))


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
