"""What slots make of rows that are held ahead of them."""

from __future__ import annotations

import time
from types import SimpleNamespace
from typing import Any

import pytest

from esb_workers.runtime.slots import SlotEngine, _Item
from esb_workers.runtime.slotwork import Outcome
from esb_workers.runtime.windows import ABREAST
from esb_workers.settings import Settings

LANE = 7
SLOTS = 8


@pytest.fixture
def engine() -> Any:
    work = SimpleNamespace(deadline_seconds=60.0, release=lambda claim: f"release {claim.id}")
    database, ringer = SimpleNamespace(url="", line=lambda: None), SimpleNamespace(broker_url="")
    made = SlotEngine("delivery", Settings(), database, ringer, work, SLOTS, ahead=192, ready=lambda task: None)  # type: ignore[arg-type]
    made.put = []  # type: ignore[attr-defined]  # what was given to the completer, which is not started
    made._completer.put = made.put.append  # type: ignore[attr-defined, method-assign]
    now = time.monotonic()
    for n in range(SLOTS):  # quick calls, until the lane is swift
        made._windows.started(LANE, f"quick-{n}", now)
        made._windows.finished(LANE, f"quick-{n}", now + 0.001, good=True)
    for n in range(200):
        made._windows.started(LANE, f"warm-{n}", now)
        made._windows.finished(LANE, f"warm-{n}", now + 0.001, good=True)
    assert made._windows.swift(LANE, now)
    return made


def hold(engine: Any, *names: str, lane: int = LANE) -> None:
    for name in names:
        engine._ahead.put(lane, item(name, lane))


def item(name: str, lane: int = LANE) -> _Item:
    return _Item(0, SimpleNamespace(id=name, attempt=1, lane_id=lane), None)  # type: ignore[arg-type]


def ids(items: list[_Item]) -> list[str]:
    return [one.claim.id for one in items]


def end(engine: Any, name: str, *, rowing: int = 0) -> tuple[list[str], bool]:
    """A slot has come to the end of a good call; what it goes on with, and whether it rows."""
    engine._begin([item(name)], time.monotonic())
    following, rows = engine._ended([(item(name), Outcome("done"), time.monotonic())], None, rowing=rowing)
    return ids(following), bool(rows)


def prove(engine: Any, lane: int, seconds: float = 0.001) -> None:
    now = time.monotonic()
    for n in range(200):
        engine._windows.started(lane, f"{n}", now)
        engine._windows.finished(lane, f"{n}", now + seconds, good=True)


def test_a_slot_that_ends_a_call_goes_on_with_rows_of_every_swift_lane(engine: Any) -> None:
    prove(engine, LANE + 1)
    hold(engine, "a")
    hold(engine, "b", "c", lane=LANE + 1)
    assert end(engine, "x") == (["a", "b"], True), "two slots use half of all places"
    assert (engine._rowing, engine._in_flight) == (1, 2)


def test_no_more_slots_row_than_are_worth_it(engine: Any) -> None:
    prove(engine, LANE, seconds=0.01)
    hold(engine, *"abcdefgh")
    tasks = engine._put_ahead([item("i")], time.monotonic())
    assert [ids(task.items) for task in tasks] == [["a", "b"], ["c", "d"]]
    assert all(task.rowing for task in tasks) and engine._rowing == ABREAST
    assert end(engine, "x") == ([], False), "it was not one of them"


def test_where_calls_take_next_to_nothing_one_slot_takes_the_rows_of_all_that_would_row(engine: Any) -> None:
    hold(engine, *"abcdefgh")
    tasks = engine._put_ahead([item("i")], time.monotonic())
    assert [ids(task.items) for task in tasks] == [["a", "b", "c", "d"]]
    assert (tasks[0].rowing, engine._rowing, engine._in_flight) == (ABREAST, ABREAST, ABREAST * 2)
    assert end(engine, "x") == ([], False), "it was not the one"
    ends = [(one, Outcome("done"), time.monotonic()) for one in tasks[0].items]
    following, rows = engine._ended(ends, None, rowing=tasks[0].rowing)
    assert (ids(following), rows, engine._rowing) == (["e", "f", "g", "h"], ABREAST, ABREAST)


def test_a_destination_that_takes_its_time_has_two_slots_row_again(engine: Any) -> None:
    prove(engine, LANE + 1, seconds=0.01)
    hold(engine, *"abcdefgh")
    tasks = engine._put_ahead([item("i", LANE + 1)], time.monotonic())
    assert [ids(task.items) for task in tasks] == [["a", "b"], ["i", "c"]]
    assert engine._rowing == ABREAST


def test_of_two_slots_that_row_one_leaves_it_to_the_other_when_calls_have_become_quick(engine: Any) -> None:
    hold(engine, *"abcd")
    engine._rowing = 2
    assert end(engine, "x", rowing=1) == ([], False)
    assert end(engine, "y", rowing=1) == (["a", "b", "c", "d"], True)


def test_a_slot_that_rows_goes_on_until_nothing_is_held(engine: Any) -> None:
    hold(engine, "a", "b", "c")
    engine._rowing = 1
    assert end(engine, "x", rowing=1) == (["a", "b"], True)
    assert end(engine, "y", rowing=1) == (["c"], True)
    assert end(engine, "z", rowing=1) == ([], False)
    assert engine._rowing == 0


def test_where_no_slot_is_free_rows_are_not_begun_but_given_back(engine: Any) -> None:
    hold(engine, "a", "b")
    engine._in_flight = SLOTS + 3  # a claim came in while other lanes went on
    engine._poked.clear()
    assert end(engine, "x") == ([], False)
    assert engine._poked.is_set(), "the pump sees to it"


def test_a_slot_gives_back_the_rows_of_a_lane_that_is_swift_no_more(engine: Any) -> None:
    hold(engine, "a")
    hold(engine, "b", lane=LANE + 1)  # where nothing is known of
    engine._windows.started(LANE + 1, "new", time.monotonic())
    assert end(engine, "x") == (["a"], True)
    assert engine._ahead.count == 0
    given = engine.put.pop(0)
    assert (given.claim.id, given.record) == ("b", "release b")


def test_rows_that_no_slot_goes_on_with_are_given_back_at_once(engine: Any) -> None:
    hold(engine, "a", "b")
    for n in range(SLOTS):  # as many calls as the lane bears
        engine._windows.started(LANE, f"late-{n}", time.monotonic())
    engine._poked.clear()
    engine._in_flight = 3
    assert end(engine, "x") == ([], False)
    assert engine._poked.is_set()
    engine.put.pop(0)
    engine._give_back_slow(time.monotonic())
    given = [engine.put.pop(0) for _ in range(2)]
    assert [(one.claim.id, one.record) for one in given] == [("a", "release a"), ("b", "release b")]
    assert engine._ahead.count == 0


def test_who_stops_gives_back_what_waits_behind_calls_that_hang(engine: Any) -> None:
    hold(engine, "a")
    engine._windows.started(LANE, "hangs", time.monotonic())
    engine._finish(time.monotonic())
    given = engine.put.pop(0)
    assert (given.claim.id, given.record) == ("a", "release a")


def test_proven_lanes_have_their_claim_when_the_share_of_the_others_is_used_up(engine: Any) -> None:
    for n in range(4):  # as many as unproven lanes may have under way together
        engine._windows.started(LANE + 1 + n, f"hangs-{n}", time.monotonic())
    claims: list[tuple[int, str]] = []
    engine._start = lambda limit, room, rooms, turn: claims.append((limit, turn)) or 0  # type: ignore[func-returns-value]
    engine._deep = False
    engine._claim_and_start(2)
    assert claims == [(2, "proven")]
