"""A renewal beside the requests: one serves all who ask before it begins, and nobody waits for ever."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from esb_workers.errors import Unavailable
from esb_workers.routing.renewer import Renewer


class Slow:
    """A renewal that begins when it is called, and ends when it is told to."""

    def __init__(self) -> None:
        self.count = 0
        self.begun = threading.Semaphore(0)
        self.go = threading.Semaphore(0)

    def __call__(self) -> None:
        self.count += 1
        self.begun.release()
        assert self.go.acquire(timeout=10)


@pytest.fixture
def slow() -> Slow:
    return Slow()


@pytest.fixture
def renewer(slow: Slow) -> Iterator[Renewer]:
    renewer = Renewer(slow)
    yield renewer
    slow.go.release(100)
    renewer.close()


def test_whoever_waits_gets_a_renewal_that_began_after_it_asked(renewer: Renewer, slow: Slow) -> None:
    renewer.ask()
    assert slow.begun.acquire(timeout=10)  # what changes from now on it may have missed
    waiting = [threading.Thread(target=renewer.wait, args=(10,)) for _ in range(8)]
    for thread in waiting:
        thread.start()
    slow.go.release()
    assert slow.begun.acquire(timeout=10)
    assert any(thread.is_alive() for thread in waiting)
    slow.go.release(3)
    for thread in waiting:
        thread.join(10)
        assert not thread.is_alive()
    assert slow.count <= 3, "one for all who asked before it began"


def test_one_waits_in_vain_for_all(renewer: Renewer, slow: Slow) -> None:
    renewer.wait(0.01)
    assert slow.begun.acquire(timeout=10)
    other = threading.Thread(target=renewer.wait, args=(600,))
    other.start()
    other.join(10)
    assert not other.is_alive(), "the first has shown that it takes long"
    slow.go.release(100)
    assert slow.begun.acquire(timeout=10), "what was asked for meanwhile is done"


def test_a_renewal_that_fails_keeps_nobody_waiting_and_is_done_again_when_asked() -> None:
    done = threading.Event()
    outcomes = iter((Unavailable("away"), RuntimeError("a defect"), None))

    def renew() -> None:
        outcome = next(outcomes)
        if outcome is not None:
            raise outcome
        done.set()

    renewer = Renewer(renew)
    for _ in range(3):
        renewer.wait(10)
    assert done.is_set()
    renewer.close()
