"""The verdict on a service's health after a check. Pure.

    unknown   -- no verdict yet: healthy after `healthyThreshold` good checks in a row
    healthy   -- degraded at the first bad check
    degraded  -- it fails, but not often enough in a row to be out: healthy again after `healthyThreshold`
                 good checks in a row, unhealthy after `unhealthyThreshold` bad ones
    unhealthy -- healthy after `healthyThreshold` good checks in a row, nothing less

A heartbeat is its own threshold: one that comes makes healthy, one that stays out for `ttl` makes unhealthy.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final, Literal

Health = Literal["unknown", "healthy", "degraded", "unhealthy"]

#: While there is no verdict yet and the checks go well, the next one comes after this, milliseconds, at most.
SETTLING_INTERVAL: Final = 1000
_STATUS_PATTERN = re.compile(r"[1-5](?:xx|[0-9]{2})")


@dataclass(frozen=True, slots=True)
class Thresholds:
    """Checks in a row that it takes."""

    healthy: int = 2
    unhealthy: int = 3


HEARTBEAT_THRESHOLDS: Final = Thresholds(1, 1)


@dataclass(frozen=True, slots=True)
class Verdict:
    """The health so far, and how many checks in a row went well or badly (one of the two is 0)."""

    health: Health = "unknown"
    successes: int = 0
    failures: int = 0


def judge(before: Verdict, ok: bool, thresholds: Thresholds) -> Verdict:
    """The verdict after one more check."""
    if ok:
        successes = before.successes + 1
        well = before.health == "healthy" or successes >= thresholds.healthy
        return Verdict("healthy" if well else before.health, successes, 0)
    failures = before.failures + 1
    out = before.health == "unhealthy" or failures >= thresholds.unhealthy
    return Verdict("unhealthy" if out else "degraded", 0, failures)


def next_interval(verdict: Verdict, interval: int) -> int:
    """Milliseconds until the next check: sooner while a new service is on its way to its first verdict."""
    settling = verdict.health == "unknown" and verdict.successes > 0
    return min(interval, SETTLING_INTERVAL) if settling else interval


def parse_expected(text: str) -> frozenset[str]:
    """`2xx`, `200`, `200,204`, `2xx,301` taken apart. Raises ValueError."""
    parts = frozenset(part.strip().lower() for part in text.split(","))
    if not all(_STATUS_PATTERN.fullmatch(part) for part in parts):
        raise ValueError("must be status codes or classes such as 2xx, 200 or 200,204")
    return parts


def expected(status: int, patterns: frozenset[str]) -> bool:
    """Whether a status is one of those."""
    return str(status) in patterns or f"{status // 100}xx" in patterns
