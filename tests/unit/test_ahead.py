"""Rows that are claimed before a slot is free for them."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from esb_workers.runtime.ahead import LANE_DEPTH, LOW, Ahead
from esb_workers.runtime.windows import SLOW, SWIFT, SWIFT_WIDTH, LaneWindows

LANE = 7


def test_rows_of_a_lane_come_in_the_order_in_which_they_were_put() -> None:
    ahead: Ahead[str] = Ahead()
    for row in "abc":
        ahead.put(LANE, row)
    ahead.put(LANE + 1, "other")
    assert [ahead.take(LANE, most) for most in (2, 0, 2, 1)] == [["a", "b"], [], ["c"], []]
    assert (ahead.count, ahead.lanes()) == (1, [LANE + 1])


def test_a_lane_that_rows_were_taken_of_and_that_has_more_goes_behind_the_others() -> None:
    ahead: Ahead[str] = Ahead()
    for lane in (1, 2, 3):
        for row in "ab":
            ahead.put(lane, row)
    assert ahead.take(1, 1) == ["a"] and ahead.lanes() == [2, 3, 1]
    assert ahead.take(3, 2) == ["a", "b"] and ahead.lanes() == [2, 1]


def test_what_is_dropped_is_all_of_its_lane_and_nothing_else() -> None:
    ahead: Ahead[str] = Ahead()
    for row in "abc":
        ahead.put(LANE, row)
    ahead.put(LANE + 1, "other")
    assert ahead.drop(LANE) == ["a", "b", "c"]
    assert ahead.drop(LANE) == []
    assert ahead.count == 1


def test_there_is_no_room_where_nothing_is_to_be_held_ahead() -> None:
    assert Ahead(0).room == 0 and Ahead(0).room_in(LANE) == 0


@given(st.lists(st.tuples(st.sampled_from(["put", "take", "drop"]), st.integers(0, 3)), max_size=400))
def test_the_count_is_that_of_the_rows_and_room_is_what_is_left(acts: list[tuple[str, int]]) -> None:
    ahead: Ahead[int] = Ahead(384)
    model: dict[int, list[int]] = {}
    for n, (act, lane) in enumerate(acts):
        rows = model.setdefault(lane, [])
        if act == "put" and ahead.room and ahead.room_in(lane):
            ahead.put(lane, n)
            rows.append(n)
        elif act == "take":
            assert ahead.take(lane, 1 + n % 3) == rows[: 1 + n % 3]
            del rows[: 1 + n % 3]
        elif act == "drop":
            assert ahead.drop(lane) == rows
            model[lane] = []
        held = sum(map(len, model.values()))
        assert ahead.count == held and ahead.room == 384 - held
        assert ahead.low == (held <= LOW)
        assert all(ahead.room_in(k) == LANE_DEPTH - len(v) for k, v in model.items())


def swift(windows: LaneWindows, took: float = 0.001) -> None:
    """Calls that prove a lane to the full, and leave it with rows that it was not allowed to give."""
    for n in range(60):
        windows.started(LANE, str(n), 0)
        windows.finished(LANE, str(n), took, good=True)
    windows.claimed(1, 0, {LANE: 1}, {LANE: 1})


def test_a_lane_is_swift_when_some_calls_were_good_and_took_a_few_milliseconds() -> None:
    windows = LaneWindows(32)
    for n in range(SWIFT_WIDTH):
        assert not windows.swift(LANE, 0)
        windows.started(LANE, f"{n}", 0)
        windows.finished(LANE, f"{n}", 0.001, good=True)
    assert windows.swift(LANE, 0) and windows.left(LANE) == SWIFT_WIDTH
    swift(windows)
    assert windows.swift_with_more(0) == [LANE]


def test_a_lane_whose_calls_take_longer_is_proven_but_not_swift() -> None:
    windows = LaneWindows(32)
    swift(windows, took=SWIFT * 2)
    assert windows.proven(0) == {LANE: 16}
    assert windows.swift_with_more(0) == []


def test_one_failure_or_one_call_that_hangs_ends_it() -> None:
    windows = LaneWindows(32)
    swift(windows)
    windows.started(LANE, "hangs", 0)
    assert windows.swift(LANE, SLOW / 2) and not windows.swift(LANE, SLOW * 2)
    windows.finished(LANE, "hangs", 0.001, good=False)
    assert not windows.swift(LANE, 0)


def test_a_swift_lane_that_gave_less_than_it_was_allowed_has_nothing_to_be_claimed_ahead() -> None:
    windows = LaneWindows(32)
    swift(windows)
    windows.claimed(96, 0, {LANE: 96}, {LANE: 20})
    assert windows.swift_with_more(0) == []


def test_a_swift_lane_bears_as_many_calls_as_its_window_is_wide() -> None:
    windows = LaneWindows(32)
    swift(windows)
    for n in range(8):
        windows.started(LANE, f"a{n}", 0)
    assert windows.left(LANE) == 8
