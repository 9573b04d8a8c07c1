"""What becomes of a delivery after an attempt. Pure: clock and random number come from the caller."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from esb_workers.registry.retries import Outcome, Random, RetryPolicy, parse_retry_after

GONE = 410


@dataclass(frozen=True, slots=True)
class Delivered:
    """The destination took it."""


@dataclass(frozen=True, slots=True)
class Retry:
    """Another attempt follows, `delay_ms` from now."""

    delay_ms: int
    error_class: str


@dataclass(frozen=True, slots=True)
class Dead:
    """No further attempt. `disables`: the instance wants nothing any more and is taken out."""

    error_class: str
    disables: bool = False


Decision = Delivered | Retry | Dead


def decide(
    outcome: Outcome, tries: int, policy: RetryPolicy, now: datetime, random: Random, begun: datetime | None = None
) -> Decision:
    """Judge an attempt; `tries` counts those of the present budget before it, `begun` is when that budget began.

    2xx is delivered; 408, 425, 429, 5xx, time-outs and lost connections are retried while the policy has
    retries left; everything else is dead at once. `Retry-After` lengthens a delay whatever `maxDelay` says. A try that
    would come later than the policy's `maxAge` after `begun` is not waited for.
    """
    if outcome.ok:
        return Delivered()
    if not outcome.transient or tries >= policy.retries:
        return Dead(outcome.error_class, disables=getattr(outcome, "status", None) == GONE)
    delay = policy.delay(tries + 1, random)
    asked = parse_retry_after(outcome.retry_after, now)
    wait = max(delay, asked or 0)
    if policy.max_age is not None and begun is not None and wait > policy.max_age - _milliseconds(now - begun):
        return Dead(outcome.error_class)
    return Retry(wait, outcome.error_class)


def _milliseconds(span: timedelta) -> float:
    return span.total_seconds() * 1000
