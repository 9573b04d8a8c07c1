"""What slots make of rows that are held ahead of them."""

from __future__ import annotations

import time
from types import SimpleNamespace
from typing import Any

import pytest

from esb_workers.runtime.slots import SlotEngine, _Item
from esb_workers.settings import Settings

LANE = 7
SLOTS = 8


@pytest.fixture
def engine() -> Any:
    work = SimpleNamespace(deadline_seconds=60.0, release=lambda claim: f"release {claim.id}")
    made = SlotEngine("delivery", Settings(), None, None, work, SLOTS, ahead=192, ready=lambda task: None)  # type: ignore[arg-type]
    now = time.monotonic()
    for n in range(SLOTS):  # quick calls, until the lane is swift
        made._windows.started(LANE, f"quick-{n}", now)
        made._windows.finished(LANE, f"quick-{n}", now + 0.001, good=True)
    for n in range(200):
        made._windows.started(LANE, f"warm-{n}", now)
        made._windows.finished(LANE, f"warm-{n}", now + 0.001, good=True)
    assert made._windows.swift(LANE, now)
    return made


def hold(engine: Any, *names: str) -> None:
    for name in names:
        engine._ahead.put(LANE, _Item(0, SimpleNamespace(id=name, attempt=1, lane_id=LANE), None))


def test_the_last_slot_of_a_lane_goes_on_though_more_calls_are_under_way_than_slots(engine: Any) -> None:
    hold(engine, "a", "b")
    engine._in_flight = SLOTS + 3  # a claim came in while other lanes went on
    assert [item.claim.id for item in engine._following(LANE, time.monotonic())] == ["a"]


def test_while_others_of_its_lane_are_at_work_a_slot_leaves_the_places_to_them(engine: Any) -> None:
    hold(engine, "a", "b")
    engine._windows.started(LANE, "x", time.monotonic())
    engine._in_flight = SLOTS + 3
    assert engine._following(LANE, time.monotonic()) == []


def test_rows_of_a_lane_in_which_nobody_is_at_work_are_given_back(engine: Any) -> None:
    hold(engine, "a", "b")
    engine._give_back_slow(time.monotonic())
    given = [engine._results.get_nowait() for _ in range(2)]
    assert [(item.claim.id, record) for item, record, _ in given] == [("a", "release a"), ("b", "release b")]
    assert engine._ahead.count == 0


def test_who_stops_gives_back_what_waits_behind_calls_that_hang(engine: Any) -> None:
    hold(engine, "a")
    engine._windows.started(LANE, "hangs", time.monotonic())
    engine._finish(time.monotonic())
    item, record, _ = engine._results.get_nowait()
    assert (item.claim.id, record) == ("a", "release a")
