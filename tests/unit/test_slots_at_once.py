"""What the pump calls itself, and what it leaves to slots."""

from __future__ import annotations

import socket
import time
from types import SimpleNamespace
from typing import Any

import pytest

from esb_workers.runtime import slots
from esb_workers.runtime.slots import SlotEngine
from esb_workers.runtime.slotwork import Outcome
from esb_workers.settings import Settings

LANE = 7
SLOTS = 8


class Hangs:
    """A call whose answer does not come."""

    ended = partial = False

    def __init__(self, there: Any) -> None:
        self.fileno = there.fileno

    def send(self) -> bool:
        return True

    def receive(self) -> None:
        raise AssertionError("nothing has come")

    def result(self) -> Outcome:
        raise AssertionError("nobody waits for it here")


@pytest.fixture
def engine() -> Any:
    """One that is not started, with a lease, and a lane whose calls take a millisecond."""
    work = SimpleNamespace(
        deadline_seconds=60.0, prepare=lambda claims: claims, release=lambda claim: f"release {claim.id}"
    )
    database, ringer = SimpleNamespace(url="", line=lambda: None), SimpleNamespace(broker_url="")
    made: Any = SlotEngine(
        "delivery",
        Settings(),
        database,
        ringer,
        work,
        SLOTS,
        ahead=192,
        ready=lambda claim: Outcome(f"{claim.id} done"),
    )
    made.worker_id, made._last_beat = 1, time.monotonic()
    made.put = []  # what was given to the completer, which is not started
    made._completer.put = made.put.append
    for n in range(SLOTS):
        made._windows.started(LANE, f"quick-{n}", time.monotonic())
        made._windows.finished(LANE, f"quick-{n}", time.monotonic(), good=True, took=0.001)
    return made


def dispatch(engine: Any, *names: str, lane: int = LANE) -> None:
    engine._dispatch(1, [SimpleNamespace(id=name, attempt=1, lane_id=lane) for name in names], ahead=False)


def left_to_slots(engine: Any) -> list[str]:
    return [item.claim.id for task in engine._queue.tasks for item in task.items]


def test_a_single_call_to_a_quick_destination_needs_no_slot(engine: Any) -> None:
    dispatch(engine, "a")
    assert [one.record for one in engine.put] == ["a done"]
    assert (left_to_slots(engine), engine._in_flight) == ([], 0)


def test_a_destination_that_is_not_known_to_be_quick_gets_a_slot(engine: Any) -> None:
    dispatch(engine, "a", lane=LANE + 1)
    assert (left_to_slots(engine), engine.put, engine._in_flight) == (["a"], [], 1)


def test_while_other_calls_are_under_way_the_pump_is_there_for_them(engine: Any) -> None:
    engine._in_flight = 1
    dispatch(engine, "a")
    assert left_to_slots(engine) == ["a"]


def test_under_load_the_pump_claims_and_slots_call(engine: Any) -> None:
    engine._looks.found(100, time.monotonic())
    dispatch(engine, "a")
    assert left_to_slots(engine) == ["a"]


def test_what_takes_its_time_gets_a_slot_to_wait_in(engine: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slots, "BRISK", 0.001)
    ours, theirs = socket.socketpair()
    with ours, theirs:
        engine._ready = lambda claim: Hangs(ours)
        engine._may_call = lambda items, now: True
        dispatch(engine, "a")
    assert (left_to_slots(engine), engine.put, engine._in_flight) == (["a"], [], 1)
    assert engine._queue.tasks[0].items[0].call is not None, "it is sent already"


def test_on_a_lease_that_may_have_run_out_nothing_is_called(engine: Any) -> None:
    engine._last_beat = 0.0
    dispatch(engine, "a")
    assert [one.record for one in engine.put] == ["release a"]
