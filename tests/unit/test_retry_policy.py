"""Retry policies and what becomes of a delivery after an attempt."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from esb_workers.delivery.policy import Dead, Delivered, Retry, decide
from esb_workers.errors import Invalid
from esb_workers.registry.retries import (
    DEFAULT_POLICY,
    Answered,
    Failed,
    RetryPolicy,
    nearest,
    parse_retry_after,
    parse_retry_policy,
)

NOW = datetime(2026, 1, 31, 8, 0, 0, tzinfo=UTC)
HOUR = 3_600_000


def never() -> float:
    return 0.0


def most() -> float:
    return 0.999999


def delays(policy: RetryPolicy, count: int) -> list[int]:
    return [policy.delay(n, never) for n in range(1, count + 1)]


def test_backoff_is_fixed_linear_or_exponential_up_to_the_cap() -> None:
    assert delays(RetryPolicy(backoff="fixed", initial_delay=500), 3) == [500, 500, 500]
    assert delays(RetryPolicy(backoff="linear", initial_delay=500, max_delay=1200), 3) == [500, 1000, 1200]
    assert delays(RetryPolicy(initial_delay=1000, max_delay=10_000), 5) == [1000, 2000, 4000, 8000, 10_000]
    assert RetryPolicy(backoff="fixed", initial_delay=500, max_delay=100).delay(1, never) == 100


def test_a_schedule_replaces_number_and_delays_and_is_exact() -> None:
    policy = parse_retry_policy({"schedule": [100, 700], "maxRetries": 9, "maxDelay": 50})
    assert policy.retries == 2
    assert [policy.delay(n, most) for n in (1, 2)] == [100, 700]


def test_the_default_is_the_standard_schedule_with_jitter() -> None:
    assert delays(DEFAULT_POLICY, 9) == [5000, 300_000, 1_800_000] + [HOUR * h for h in (2, 5, 10, 14, 20, 24)]
    assert DEFAULT_POLICY.retries == 9
    assert 5900 < DEFAULT_POLICY.delay(1, most) <= 6000


def test_missing_fields_default_singly() -> None:
    assert parse_retry_policy({}) == RetryPolicy(3, "exponential", 1000, 60_000, 0.2, None)
    assert parse_retry_policy({"maxRetries": 0, "jitter": None}).retries == 0


def test_the_nearest_policy_is_taken_whole() -> None:
    route = RetryPolicy(max_retries=1)
    assert nearest(None, route, RetryPolicy(max_retries=7), default=DEFAULT_POLICY) is route
    assert nearest(None, None, None, default=DEFAULT_POLICY) is DEFAULT_POLICY


policies = st.builds(
    RetryPolicy,
    max_retries=st.integers(0, 20),
    backoff=st.sampled_from(["fixed", "linear", "exponential"]),
    initial_delay=st.integers(0, 100_000),
    max_delay=st.integers(0, 10_000_000),
    jitter=st.floats(0, 1),
)


@given(policies, st.integers(1, 2000), st.floats(0, 1, exclude_max=True))
def test_jitter_only_lengthens_and_the_cap_holds(policy: RetryPolicy, retry: int, chance: float) -> None:
    plain, jittered = policy.delay(retry, never), policy.delay(retry, lambda: chance)
    assert 0 <= plain <= jittered <= policy.max_delay
    assert jittered <= plain * (1 + policy.jitter) + 1


@pytest.mark.parametrize(
    ("value", "path"),
    [
        ({"maxRetries": -1}, "maxRetries"),
        ({"maxRetries": True}, "maxRetries"),
        ({"maxRetries": "3"}, "maxRetries"),
        ({"backoffStrategy": "random"}, "backoffStrategy"),
        ({"backoffStrategy": []}, "backoffStrategy"),
        ({"initialDelay": 1.5}, "initialDelay"),
        ({"maxDelay": -1}, "maxDelay"),
        ({"jitter": 1.1}, "jitter"),
        ({"jitter": float("nan")}, "jitter"),
        ({"schedule": 5}, "schedule"),
        ({"schedule": [1, -1]}, "schedule"),
        ({"maxAge": 0}, "maxAge"),
        ({"retries": 3}, "retries"),
    ],
)
def test_a_policy_that_breaks_a_rule_is_refused_by_name(value: dict[str, Any], path: str) -> None:
    with pytest.raises(Invalid) as caught:
        parse_retry_policy(value, "destinations[0].retryPolicy")
    assert [error.path for error in caught.value.errors] == [f"destinations[0].retryPolicy.{path}"]


# --- Retry-After


@pytest.mark.parametrize(
    ("header", "milliseconds"),
    [
        (None, None),
        ("", None),
        ("soon", None),
        ("-5", None),
        ("1.5", None),
        ("0", 0),
        ("120", 120_000),
        ("99999999999999", 24 * HOUR),
        ("Sat, 31 Jan 2026 08:01:00 GMT", 60_000),
        ("Sat, 31 Jan 2026 07:00:00 GMT", 0),
        ("Sat, 31 Jan 2099 08:00:00 GMT", 24 * HOUR),
        ("Sat, 31 Foo 2026 08:01:00 GMT", None),
    ],
)
def test_retry_after_is_seconds_or_a_date_of_at_most_a_day(header: str | None, milliseconds: int | None) -> None:
    assert parse_retry_after(header, NOW) == milliseconds


@given(st.text(max_size=40))
def test_retry_after_may_be_anything(header: str) -> None:
    found = parse_retry_after(header, NOW)
    assert found is None or 0 <= found <= 24 * HOUR


# --- decisions

THREE = RetryPolicy(max_retries=3, backoff="fixed", initial_delay=1000, jitter=0)


def after(outcome: Answered | Failed, tries: int = 0) -> Any:
    return decide(outcome, tries, THREE, NOW, never)


@pytest.mark.parametrize("status", [200, 201, 202, 204, 226, 299])
def test_2xx_is_delivered(status: int) -> None:
    assert after(Answered(status)) == Delivered()


@pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503, 504, 599])
def test_these_are_retried(status: int) -> None:
    assert after(Answered(status)) == Retry(1000, f"HttpStatus.{status}")


@pytest.mark.parametrize("status", [300, 301, 302, 304, 307, 400, 401, 403, 404, 409, 418, 422, 451])
def test_everything_else_is_dead_at_once(status: int) -> None:
    assert after(Answered(status)) == Dead(f"HttpStatus.{status}")


def test_410_is_dead_and_disables() -> None:
    assert after(Answered(410)) == Dead("HttpStatus.410", disables=True)


def test_timeouts_and_connection_errors_are_retried_and_refused_addresses_are_not() -> None:
    assert after(Failed("Timeout")) == Retry(1000, "Timeout")
    assert after(Failed("ServiceUnavailable")) == Retry(1000, "ServiceUnavailable")
    assert after(Failed("AddressRefused", transient=False)) == Dead("AddressRefused")


def test_retries_count_tries_after_the_first() -> None:
    assert [type(after(Answered(500), tries)) for tries in range(4)] == [Retry, Retry, Retry, Dead]
    assert decide(Answered(500), 0, RetryPolicy(max_retries=0), NOW, never) == Dead("HttpStatus.500")


def test_retry_after_lengthens_a_delay_whatever_the_cap_says_and_never_shortens_it() -> None:
    capped = RetryPolicy(initial_delay=1000, max_delay=2000, jitter=0)
    assert decide(Answered(429, "3600"), 0, capped, NOW, never) == Retry(HOUR, "HttpStatus.429")
    assert decide(Answered(503, "0"), 0, capped, NOW, never) == Retry(1000, "HttpStatus.503")


def test_a_try_that_would_come_after_the_total_age_is_not_waited_for() -> None:
    aged = parse_retry_policy({"schedule": [1000, 1000], "maxAge": 10_000})
    begun = [NOW - timedelta(seconds=seconds) for seconds in (0, 9, 9.001, 60)]
    found = [decide(Answered(500), 0, aged, NOW, never, moment) for moment in begun]
    assert [type(decision) for decision in found] == [Retry, Retry, Dead, Dead]
    assert decide(Answered(503, "3600"), 0, aged, NOW, never, NOW) == Dead("HttpStatus.503")


def test_the_circuit_counts_server_errors_408_timeouts_and_connections_only() -> None:
    counted = [s for s in (200, 302, 400, 404, 408, 410, 425, 429, 500, 503) if Answered(s).counts_against_circuit]
    assert counted == [408, 500, 503]
    assert Failed("Timeout").counts_against_circuit
    assert not Failed("AddressRefused", transient=False).counts_against_circuit
