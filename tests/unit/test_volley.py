"""Several calls under way in one thread."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator

import pytest

from esb_workers.runtime.volley import Late, volley

OPEN: list[socket.socket] = []


class Call:
    """A call whose answer is what its peer sends: whole at a full stop, not plain with a question mark."""

    def __init__(self) -> None:
        self._socket, self.peer = socket.socketpair()
        OPEN.extend((self._socket, self.peer))
        self._come, self.partial = b"", False

    def fileno(self) -> int:
        return self._socket.fileno()

    def read(self, *, wait: bool) -> str | None:
        self._come += self._socket.recv(100)
        if b"!" in self._come:
            raise ValueError
        self.partial = not self._come.endswith((b".", b"?"))
        return self._come.decode() if self._come.endswith(b".") else None


@pytest.fixture(autouse=True)
def closed() -> Iterator[None]:
    yield
    while OPEN:
        OPEN.pop().close()


def answered(text: bytes) -> Call:
    call = Call()
    call.peer.sendall(text)
    return call


def test_all_are_begun_before_the_first_is_read() -> None:
    calls = [Call(), Call(), Call()]
    begun: list[int] = []

    def begin(number: int) -> Call:
        begun.append(number)
        if len(begun) == 3:
            for n, call in enumerate(calls):
                call.peer.sendall(b"%d." % n)
        return calls[number]

    ended, late = volley([0, 1, 2], begin)
    assert sorted(ended) == [(0, "0."), (1, "1."), (2, "2.")] and late == []


def test_what_ends_at_once_or_is_not_taken_needs_no_waiting() -> None:
    ended, late = volley(["now", "never"], lambda task: "done" if task == "now" else None)
    assert (ended, late) == ([(0, "done")], [Late(1, None)])


def test_an_answer_that_is_late_or_not_plain_holds_up_nobody() -> None:
    silent, odd = Call(), answered(b"what?")
    calls = [silent, odd, answered(b"ok.")]
    started = time.monotonic()
    ended, late = volley(calls, lambda call: call, patience=0.05)
    assert ended == [(2, "ok.")]
    assert sorted(late) == [Late(0, silent), Late(1, odd)]
    assert time.monotonic() - started < 1


def test_the_rest_of_an_answer_is_waited_for() -> None:
    call = answered(b"in pa")
    threading.Timer(0.02, call.peer.sendall, (b"rts.",)).start()
    assert volley([call], lambda one: one, patience=5) == ([(0, "in parts.")], [])


def test_what_fails_is_late_so_that_it_fails_again_where_it_is_seen_to() -> None:
    def begin(task: Call | None) -> Call:
        if task is None:
            raise ValueError
        return task

    broken = answered(b"!")
    assert volley([None, broken], begin) == ([], [Late(0, None), Late(1, broken)])


def test_what_could_not_be_begun_in_time_is_left_to_threads_of_its_own() -> None:
    def begin(number: int) -> str:
        time.sleep(0.03)
        return f"{number}"

    ended, late = volley([0, 1, 2, 3], begin, patience=0.05)
    assert ended == [(0, "0"), (1, "1")]
    assert late == [Late(2, None), Late(3, None)]
