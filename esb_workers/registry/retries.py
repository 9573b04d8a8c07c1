"""Retry policies: how often something is tried again, and after how long.

Deliveries and workflow steps share them. Pure: the random number comes from the caller.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import cached_property
from typing import Any, Final, Literal, TypeVar, get_args

from tenacity import RetryCallState, Retrying, wait_chain, wait_exponential, wait_fixed, wait_incrementing
from tenacity.wait import wait_base

from esb_workers.errors import FieldError, Invalid

Backoff = Literal["fixed", "linear", "exponential"]

SECOND, MINUTE, HOUR = 1000, 60_000, 3_600_000
#: The schedule that Standard Webhooks recommends, milliseconds: eight more tries and a last one over 75 hours.
STANDARD_SCHEDULE: Final = tuple(
    [5 * SECOND, 5 * MINUTE, 30 * MINUTE] + [hours * HOUR for hours in (2, 5, 10, 14, 20, 24)]
)
#: How far `Retry-After` may put off the next try, milliseconds.
MAX_RETRY_AFTER: Final = 24 * HOUR
_MAX_RETRIES, _MAX_DELAY, _MAX_SCHEDULE, _MAX_AGE = 1000, 30 * 24 * HOUR, 100, 365 * 24 * HOUR

#: A number in [0, 1).
Random = Callable[[], float]

T = TypeVar("T")


@dataclass(frozen=True)
class RetryPolicy:
    """When to try again. Times in milliseconds; `max_retries` counts tries after the first.

    A `schedule` replaces all the rest: its length is the number of retries and its entries the delays, exact
    unless `jitter` is given with it. `jitter` 0.2 lengthens a delay by chance by up to 20 %: nothing is ever tried
    sooner than its author asked.
    """

    max_retries: int = 3
    backoff: Backoff = "exponential"
    initial_delay: int = 1000
    max_delay: int = 60_000
    jitter: float = 0.2
    schedule: tuple[int, ...] | None = None
    max_age: int | None = None  # a try that would come later than this after the beginning is not made

    @property
    def retries(self) -> int:
        """How many tries there may be after the first."""
        return self.max_retries if self.schedule is None else len(self.schedule)

    def delay(self, retry: int, random: Random) -> int:
        """Milliseconds before the `retry`-th try after the first (from 1)."""
        state = RetryCallState(_NOT_RUN, None, (), {})
        state.attempt_number = retry
        exact = self._wait(state) * 1000
        spread = exact * (1 + self.jitter * random())
        return round(spread if self.schedule is not None else min(spread, self.max_delay))

    @cached_property
    def _wait(self) -> wait_base:
        if self.schedule is not None:
            return wait_chain(*[wait_fixed(delay / 1000) for delay in self.schedule])
        first, most = self.initial_delay / 1000, self.max_delay / 1000
        if self.backoff == "fixed":
            return wait_fixed(min(first, most))
        if self.backoff == "linear":
            return wait_incrementing(start=first, increment=first, max=most)
        return wait_exponential(multiplier=first, max=most)


# Tenacity's strategies ask a call's state for its number; the call itself is never made by tenacity.
_NOT_RUN: Final = Retrying()

#: What holds where neither destination nor route nor service says anything.
DEFAULT_POLICY: Final = RetryPolicy(schedule=STANDARD_SCHEDULE)


def nearest(*candidates: T | None, default: T) -> T:
    """The first that is given, whole: destination, route, service, default."""
    for candidate in candidates:
        if candidate is not None:
            return candidate
    return default


_FIELDS: Final = ("maxRetries", "backoffStrategy", "initialDelay", "maxDelay", "jitter", "schedule", "maxAge")


def parse_retry_policy(value: Mapping[str, Any], path: str = "retryPolicy") -> RetryPolicy:
    """The policy that a body describes; missing fields default singly. Raises Invalid naming each fault."""
    if not isinstance(value, Mapping):
        raise Invalid([FieldError(path, "must be an object")])
    errors = [FieldError(f"{path}.{name}", "there is no such field") for name in value if name not in _FIELDS]
    given = {name: item for name, item in value.items() if item is not None}
    errors += [
        FieldError(f"{path}.{name}", complaint)
        for name, item in given.items()
        if name in _FIELDS and (complaint := _complaint(name, item))
    ]
    if errors:
        raise Invalid(errors)
    return _policy(given)


def _policy(given: Mapping[str, Any]) -> RetryPolicy:
    schedule = given.get("schedule")
    return RetryPolicy(
        max_retries=given.get("maxRetries", 3),
        backoff=given.get("backoffStrategy", "exponential"),
        initial_delay=given.get("initialDelay", 1000),
        max_delay=given.get("maxDelay", 60_000),
        jitter=given.get("jitter", 0.2 if not schedule else 0.0),
        schedule=tuple(schedule) if schedule else None,
        max_age=given.get("maxAge"),
    )


def _complaint(name: str, item: Any) -> str | None:
    match name:
        case "maxRetries":
            return _whole(item, 0, _MAX_RETRIES)
        case "initialDelay" | "maxDelay":
            return _whole(item, 0, _MAX_DELAY)
        case "maxAge":
            return _whole(item, 1, _MAX_AGE)
        case "backoffStrategy":
            known = get_args(Backoff)
            return None if item in known else f"must be one of {', '.join(known)}"
        case "jitter":
            number = isinstance(item, int | float) and not isinstance(item, bool) and 0 <= item <= 1
            return None if number else "must be a number from 0 to 1"
        case _:
            return _schedule_complaint(item)


def _whole(item: Any, least: int, most: int) -> str | None:
    fits = isinstance(item, int) and not isinstance(item, bool) and least <= item <= most
    return None if fits else f"must be a whole number from {least} to {most}"


def _schedule_complaint(item: Any) -> str | None:
    if not isinstance(item, list | tuple) or len(item) > _MAX_SCHEDULE:
        return f"must be a list of at most {_MAX_SCHEDULE} delays in milliseconds"
    return next((complaint for delay in item if (complaint := _whole(delay, 0, _MAX_DELAY))), None)


def parse_retry_after(value: str | None, now: datetime) -> int | None:
    """Milliseconds that `Retry-After` asks for, seconds or an HTTP date, at most 24 h; None when it says nothing."""
    text = (value or "").strip()
    if text.isascii() and text.isdecimal():
        return min(int(text[:9]) * 1000, MAX_RETRY_AFTER)
    try:
        moment = parsedate_to_datetime(text)
    except (ValueError, IndexError, OverflowError):
        return None
    moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return max(0, min(round((moment - now).total_seconds() * 1000), MAX_RETRY_AFTER))


# --- what an attempt came to -----------------------------------------------------------------------------

_RETRIED_4XX: Final = frozenset({408, 425, 429})
#: Of these, an instance is not to blame: it is well enough to say that it is busy.
_NOT_THE_CIRCUITS: Final = frozenset({425, 429})
#: Nor is a broker that sends one message back: the next one's key may lead somewhere.
_NOT_THE_BROKERS: Final = frozenset({"Unroutable"})


@dataclass(frozen=True, slots=True)
class Answered:
    """The destination answered."""

    status: int
    retry_after: str | None = None

    @property
    def ok(self) -> bool:
        """Whether the work is done."""
        return 200 <= self.status < 300

    @property
    def transient(self) -> bool:
        """Whether another try may end differently."""
        return self.status in _RETRIED_4XX or self.status >= 500

    @property
    def error_class(self) -> str:
        """The name of this failure."""
        return f"HttpStatus.{self.status}"

    @property
    def counts_against_circuit(self) -> bool:
        """Whether the instance is to blame."""
        return self.transient and self.status not in _NOT_THE_CIRCUITS


@dataclass(frozen=True, slots=True)
class Failed:
    """No answer came: `Timeout`, `ServiceUnavailable`, or for good `AddressRefused` and the like."""

    error_class: str
    transient: bool = True
    retry_after: None = None

    @property
    def ok(self) -> bool:
        """Never."""
        return False

    @property
    def counts_against_circuit(self) -> bool:
        """Whether the instance is to blame: for what our own rules refuse it is not."""
        return self.transient and self.error_class not in _NOT_THE_BROKERS


Outcome = Answered | Failed
