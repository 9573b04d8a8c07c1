"""How much of a worker a destination may use."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from esb_workers.runtime.windows import SLOW, LaneWindows


def prove(windows: LaneWindows, lane: int, calls: int, now: float = 0.0) -> None:
    for n in range(calls):
        windows.started(lane, f"{lane}-{n}", now)
        windows.finished(lane, f"{lane}-{n}", now + 0.01, good=True)


def test_a_lane_nobody_has_seen_is_unproven_and_gets_one_slot() -> None:
    windows = LaneWindows(32)
    assert windows.proven(0) == {}
    assert windows.unproven(0) == (12, 1, {})


def test_quick_good_calls_widen_a_lane_to_half_of_the_slots() -> None:
    windows = LaneWindows(32)
    prove(windows, 7, 50)
    assert windows.proven(0) == {7: 16}


def test_a_failure_takes_the_window_away() -> None:
    windows = LaneWindows(32)
    prove(windows, 7, 50)
    windows.started(7, "x", 0)
    windows.finished(7, "x", 0.01, good=False)
    assert windows.proven(0) == {}


def test_what_was_not_tried_proves_nothing() -> None:
    windows = LaneWindows(32)
    windows.started(7, "x", 0)
    windows.finished(7, "x", 0.0, good=None)
    assert windows.proven(0) == {}


def test_a_call_that_hangs_makes_its_lane_unproven_while_it_lasts() -> None:
    windows = LaneWindows(32)
    prove(windows, 7, 50)
    windows.started(7, "slow", 0)
    assert windows.proven(SLOW / 2) == {7: 15}
    assert windows.proven(SLOW * 2) == {}
    windows.finished(7, "slow", SLOW * 3, good=True)
    assert windows.proven(SLOW * 3) == {7: 16}, "slow is not failed: the window stays"


def test_unproven_lanes_together_use_half_of_the_slots() -> None:
    windows = LaneWindows(32)
    for n in range(16):
        windows.started(n, str(n), 0)
    share, _, _ = windows.unproven(1)
    assert share == 0


def test_however_many_calls_hang_in_a_lane_others_can_begin_with_one_each() -> None:
    windows = LaneWindows(32)
    prove(windows, 1, 50)
    for n in range(16):
        windows.started(1, f"hangs-{n}", 0)
    assert windows.unproven(1) == (4, 1, {1: 0})
    windows.started(2, "too", 1)
    assert windows.unproven(2) == (3, 1, {1: 0, 2: 0})


def test_a_single_slow_destination_gets_more_room_when_nobody_else_wants_it() -> None:
    windows = LaneWindows(32)
    for _ in range(6):
        windows.claimed_unproven(asked=16, got=1)
    assert windows.unproven(0)[1] == 16
    windows.claimed_unproven(asked=4, got=4)
    assert windows.unproven(0)[1] == 1


def test_a_lane_that_gave_all_it_was_allowed_may_have_more() -> None:
    windows = LaneWindows(32)
    windows.claimed(16, 1, {}, {3: 1})
    windows.started(3, "a", 0)
    assert windows.finished(3, "a", 0.01, good=True)
    windows.claimed(16, 0, {3: 4}, {})
    windows.started(3, "b", 0)
    assert not windows.finished(3, "b", 0.01, good=True)


@given(st.lists(st.tuples(st.integers(0, 5), st.floats(0, 1), st.booleans()), max_size=60))
def test_rooms_are_never_negative_nor_above_the_slots(calls: list[tuple[int, float, bool]]) -> None:
    windows, now = LaneWindows(8), 0.0
    for n, (lane, seconds, good) in enumerate(calls):
        windows.started(lane, str(n), now)
        share, room, rooms = windows.unproven(now)
        assert 0 <= share <= 4 and 1 <= room <= 4 and all(0 <= r <= 8 for r in rooms.values())
        assert all(0 <= r <= 4 for r in windows.proven(now).values())
        now += seconds
        windows.finished(lane, str(n), now, good)
