"""Retry policies: how often, and after how long. Milliseconds throughout."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

BackoffStrategy = Literal["fixed", "linear", "exponential"]


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """`max_retries` counts tries after the first. `schedule`, when given, replaces strategy and cap."""

    max_retries: int = 3
    strategy: BackoffStrategy = "exponential"
    initial_delay: int = 1000
    max_delay: int = 60_000
    jitter: float = 0.2
    schedule: tuple[int, ...] = ()

    @property
    def retries(self) -> int:
        """How many tries follow the first."""
        return len(self.schedule) or self.max_retries

    def delay(self, n: int, random: float) -> int:
        """Milliseconds before the nth retry (from 1), lengthened by up to `jitter`; `random` is in [0, 1).

        Jitter only lengthens: a delay is never shorter than its author asked for, and never over the cap.
        """
        if self.schedule:
            return round(self.schedule[n - 1] * (1 + self.jitter * random))
        factor = {"fixed": 1, "linear": n, "exponential": 2 ** min(n - 1, 40)}[self.strategy]
        return round(min(self.initial_delay * factor * (1 + self.jitter * random), self.max_delay))


#: Tried once: what a step without any policy gets.
ONCE = RetryPolicy(max_retries=0)
