"""When a pool is under load."""

from __future__ import annotations

import pytest

from esb_workers.runtime.pace import STEADY, STEADY_SPAN, Pace


def paced(per_second: float, seconds: float, rows: int = 1, pace: Pace | None = None) -> tuple[Pace, float]:
    pace, now = pace or Pace(), 1000.0
    while now < 1000.0 + seconds:
        pace.note(rows, now)
        now += rows / per_second
    return pace, now


@pytest.mark.parametrize("rows", [1, 10])
def test_the_rate_of_steady_rows_is_found(rows: int) -> None:
    pace, now = paced(1000, 1, rows)
    assert pace.rate(now) == pytest.approx(1000, rel=0.1)


def test_a_quiet_pool_is_not_under_load() -> None:
    pace, now = paced(200, 1)
    assert not pace.loaded(now)
    assert not Pace().loaded(now)


def test_a_few_rows_at_once_are_no_load() -> None:
    pace = Pace()
    pace.note(10, 1000.0)
    assert not pace.loaded(1000.0)


def test_load_ends_soon_after_its_last_row() -> None:
    pace, now = paced(2000, 1)
    assert pace.loaded(now)
    assert not pace.loaded(now + 0.3)


@pytest.mark.parametrize(("per_second", "steady"), [(20, False), (200, True)])
def test_rows_that_come_fast_enough_are_a_steady_flow(per_second: float, steady: bool) -> None:
    pace, now = paced(per_second, 3, pace=Pace(STEADY_SPAN, STEADY))
    assert pace.loaded(now) is steady
    assert not pace.loaded(now + 2)
