"""The verdict on a service's health."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from esb_workers.health.judge import (
    HEARTBEAT_THRESHOLDS,
    Thresholds,
    Verdict,
    expected,
    judge,
    next_interval,
    parse_expected,
)

DEFAULT, NEW = Thresholds(), Verdict()


def healths(checks: str, thresholds: Thresholds = DEFAULT, start: Verdict = NEW) -> list[str]:
    """`+` is a good check, `-` a bad one; the health after each."""
    found, verdict = [], start
    for check in checks:
        verdict = judge(verdict, check == "+", thresholds)
        found.append(verdict.health)
    return found


def test_a_new_service_is_unknown_until_enough_checks_went_well() -> None:
    assert healths("++") == ["unknown", "healthy"]


def test_a_failing_service_is_degraded_and_then_unhealthy() -> None:
    assert healths("++---") == ["unknown", "healthy", "degraded", "degraded", "unhealthy"]
    assert healths("---") == ["degraded", "degraded", "unhealthy"]


def test_going_back_takes_good_checks_in_a_row() -> None:
    sick = Verdict("unhealthy", 0, 3)
    assert healths("+-++", start=sick) == ["unhealthy", "unhealthy", "unhealthy", "healthy"]
    assert healths("+-+-++", start=Verdict("degraded", 0, 1)) == ["degraded"] * 5 + ["healthy"]


def test_one_bad_check_between_good_ones_only_degrades() -> None:
    assert healths("-++", start=Verdict("healthy", 9, 0)) == ["degraded", "degraded", "healthy"]


def test_a_heartbeat_is_its_own_threshold() -> None:
    assert healths("+-+", HEARTBEAT_THRESHOLDS) == ["healthy", "unhealthy", "healthy"]


@given(st.text("+-", max_size=60), st.integers(1, 5), st.integers(1, 5))
def test_the_verdict_follows_the_checks_in_a_row(checks: str, healthy: int, unhealthy: int) -> None:
    thresholds = Thresholds(healthy, unhealthy)
    verdict = Verdict()
    for n, check in enumerate(checks, 1):
        before, verdict = verdict, judge(verdict, check == "+", thresholds)
        past = checks[:n]
        if past.endswith("+" * healthy):
            assert verdict.health == "healthy"
        elif past.endswith("-" * unhealthy):
            assert verdict.health == "unhealthy"
        elif verdict.health != before.health:
            assert verdict.health == "degraded"
            assert check == "-"
        assert verdict.successes == len(past) - len(past.rstrip("+"))
        assert verdict.failures == len(past) - len(past.rstrip("-"))


def test_a_new_service_is_checked_again_soon_until_its_first_verdict() -> None:
    assert next_interval(Verdict("unknown", 1, 0), 30_000) == 1000
    assert next_interval(Verdict("unknown", 1, 0), 200) == 200
    assert next_interval(Verdict("healthy", 2, 0), 30_000) == 30_000
    assert next_interval(Verdict("degraded", 0, 1), 30_000) == 30_000


@pytest.mark.parametrize(
    ("text", "good", "bad"),
    [("2xx", (200, 204, 299), (199, 300, 500)), ("200", (200,), (201,)), ("200, 204", (200, 204), (201,))]
    + [("2XX,301", (200, 301), (302,))],
)
def test_the_expected_status_is_codes_and_classes(text: str, good: tuple[int, ...], bad: tuple[int, ...]) -> None:
    patterns = parse_expected(text)
    assert all(expected(status, patterns) for status in good)
    assert not any(expected(status, patterns) for status in bad)


@pytest.mark.parametrize("text", ["", "abc", "2x", "600", "200-299", "200,", "20 0"])
def test_what_is_no_expected_status_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        parse_expected(text)
