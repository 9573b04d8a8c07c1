"""When schedules are due: cron, time zones, and the two days a year on which clocks are changed."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from esb_workers.clock import from_wire, to_wire
from esb_workers.orchestration.calendar import Calendar, check_cron, check_zone, due_times


def times(cron: str, zone: str, since: str, count: int = 3) -> list[str]:
    return [str(to_wire(due))[:16] for due in Calendar(cron, zone).upcoming(from_wire(since), count)]


def test_a_time_that_is_skipped_in_spring_is_due_when_the_clocks_have_sprung_forward() -> None:
    # Berlin, 29 March 2026: after 01:59 comes 03:00, which is 01:00 UTC.
    assert times("30 2 * * *", "Europe/Berlin", "2026-03-28T00:00:00Z") == [
        "2026-03-28T01:30", "2026-03-29T01:00", "2026-03-30T00:30",
    ]  # fmt: skip


def test_a_time_that_comes_twice_in_autumn_is_due_once() -> None:
    # Berlin, 25 October 2026: 02:30 is at 00:30 UTC and again at 01:30 UTC.
    assert times("30 2 * * *", "Europe/Berlin", "2026-10-24T12:00:00Z", 2) == ["2026-10-25T00:30", "2026-10-26T01:30"]


def test_what_recurs_all_day_goes_by_elapsed_time() -> None:
    spring = times("*/30 * * * *", "Europe/Berlin", "2026-03-29T00:15:00Z", 4)
    autumn = times("*/30 * * * *", "Europe/Berlin", "2026-10-24T23:45:00Z", 6)
    assert spring == ["2026-03-29T00:30", "2026-03-29T01:00", "2026-03-29T01:30", "2026-03-29T02:00"]
    assert autumn == [
        "2026-10-25T00:00", "2026-10-25T00:30", "2026-10-25T01:00", "2026-10-25T01:30", "2026-10-25T02:00", "2026-10-25T02:30",
    ]  # fmt: skip


def test_local_time_is_kept_over_the_year() -> None:
    assert times("0 8 1 1,7 *", "America/New_York", "2026-01-01T00:00:00Z", 2) == [
        "2026-01-01T13:00",
        "2026-07-01T12:00",
    ]


@pytest.mark.parametrize("cron", ["", "x", "* * * *", "61 * * * *", "0 0 30 2 *", "@never", "* * * * * * *"])
def test_what_is_no_cron_expression_or_never_due_is_refused(cron: str) -> None:
    with pytest.raises(ValueError, match=r"is no cron expression|never comes due"):
        check_cron(cron)


@pytest.mark.parametrize("cron", ["* * * * *", "*/5 * * * * *", "0 9 * * MON-FRI", "0 0 L * *", "@daily", "0 0 29 2 *"])
def test_what_is_one_is_taken(cron: str) -> None:
    assert check_cron(cron) == cron


@pytest.mark.parametrize("zone", ["", "Mars/Olympus", "../../etc/passwd", "/etc/localtime", "Europe"])
def test_zones_that_are_none_are_refused(zone: str) -> None:
    with pytest.raises(ValueError, match="no time zone"):
        check_zone(zone)


def test_a_calendar_begins_at_its_start_and_ends_before_its_end() -> None:
    calendar = Calendar("0 * * * *", "UTC", from_wire("2026-01-01T10:00:00Z"), from_wire("2026-01-01T12:00:00Z"))
    dues = list(calendar.after(from_wire("2026-01-01T00:00:00Z")))
    assert [due.hour for due in dues] == [10, 11]
    assert calendar.latest(from_wire("2026-01-02T00:00:00Z")) == dues[-1]
    assert calendar.latest(from_wire("2026-01-01T09:59:00Z")) is None


NOW = datetime(2026, 1, 1, 12, 0, 30, tzinfo=UTC)


@pytest.mark.parametrize(
    ("catch_up", "hours"), [("none", [12]), ("last", [12]), ("all", [9, 10, 11, 12])]
)  # fmt: skip
def test_missed_due_times_are_caught_up_as_the_schedule_says(catch_up: str, hours: list[int]) -> None:
    since = datetime(2026, 1, 1, 9, tzinfo=UTC)
    assert [due.hour for due in due_times(Calendar("0 * * * *"), since, NOW, catch_up)] == hours
    later = NOW + timedelta(minutes=10)  # now the one of 12:00 is missed too
    found = [due.hour for due in due_times(Calendar("0 * * * *"), since, later, catch_up)]
    assert found == ([] if catch_up == "none" else hours)


@given(st.integers(0, 10_000), st.integers(0, 3000), st.sampled_from(["none", "last", "all"]))
def test_no_due_time_is_handled_twice_however_often_one_looks(start: int, gap: int, catch_up: str) -> None:
    calendar = Calendar("*/7 * * * *")
    now = datetime(2026, 3, 1, tzinfo=UTC) + timedelta(minutes=start)
    since = calendar.next(now)
    seen: list[datetime] = []
    for _ in range(4):
        now += timedelta(seconds=gap)
        while since is not None and since <= now:
            dues = due_times(calendar, since, now, catch_up)
            seen += dues
            since = calendar.next(dues[-1] if dues else now)
    assert seen == sorted(set(seen))
    assert all(due <= now for due in seen)
