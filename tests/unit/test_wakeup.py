"""An event that is waited for together with a descriptor."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from esb_workers.runtime.wakeup import Wakeup

LONG = 30.0


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    """The end to read from, and the one to write to."""
    ends = os.pipe()
    yield ends
    for end in ends:
        os.close(end)


def waiting(wakeup: Wakeup, other: int = -1) -> tuple[threading.Thread, list[bool]]:
    """A thread that waits, and what its wait answered."""
    answers: list[bool] = []
    thread = threading.Thread(target=lambda: answers.append(wakeup.wait(LONG, other)), daemon=True)
    thread.start()
    return thread, answers


def test_what_was_set_before_is_not_waited_for() -> None:
    wakeup, began = Wakeup(), time.monotonic()
    wakeup.set()
    assert wakeup.is_set() and wakeup.wait(LONG) is False
    assert time.monotonic() - began < LONG / 2


def test_who_waits_is_waked_by_a_set(eventually: Callable[..., None]) -> None:
    wakeup = Wakeup()
    thread, answers = waiting(wakeup)
    eventually(lambda: wakeup._waits)
    wakeup.set()
    thread.join(LONG / 2)
    assert answers == [False]


def test_who_waits_is_waked_by_what_comes_in_on_the_descriptor(pipe: tuple[int, int]) -> None:
    wakeup = Wakeup()
    thread, answers = waiting(wakeup, pipe[0])
    os.write(pipe[1], b"x")
    thread.join(LONG / 2)
    assert answers == [True]
    assert not wakeup.is_set()


def test_after_a_clear_it_is_waited_anew_and_no_old_set_counts() -> None:
    wakeup = Wakeup()
    wakeup.set()
    wakeup.clear()
    began = time.monotonic()
    assert wakeup.wait(0.05) is False
    assert time.monotonic() - began >= 0.05


def test_another_descriptor_may_be_looked_at_each_time(pipe: tuple[int, int]) -> None:
    wakeup = Wakeup()
    os.write(pipe[1], b"x")
    assert wakeup.wait(0.0, pipe[0]) is True
    assert wakeup.wait(0.0) is False, "nobody looks at it any more"
    assert wakeup.wait(0.0, pipe[0]) is True


def test_of_a_thousand_sets_at_any_moment_none_is_missed() -> None:
    """One thread takes what another has put; it would sleep for long with something left to take."""
    wakeup, put, taken = Wakeup(), [0], 0

    def give() -> None:
        for _ in range(1000):
            put[0] += 1
            wakeup.set()

    giver = threading.Thread(target=give, daemon=True)
    began = time.monotonic()
    giver.start()
    while taken < 1000:
        wakeup.wait(LONG)
        wakeup.clear()
        taken = put[0]
    assert time.monotonic() - began < LONG / 2
