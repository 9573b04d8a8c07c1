"""Several calls under way in one thread."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from esb_workers.runtime.volley import Late
from esb_workers.runtime.volley import volley as timed_volley


def volley(*arguments: Any, **options: Any) -> tuple[list[tuple[int, str]], list[Late[str]]]:
    """Without the moments at which calls ended."""
    ended, late = timed_volley(*arguments, **options)
    return [(one.position, one.result) for one in ended], late


OPEN: list[socket.socket] = []


class Call:
    """A call whose answer is what its peer sends: whole at a full stop, not plain with a question mark."""

    def __init__(self, *, slow: bool = False) -> None:
        self._socket, self.peer = socket.socketpair()
        OPEN.extend((self._socket, self.peer))
        self._come, self.partial, self._slow = b"", False, slow
        self.sent, self.asked = False, 0

    def send(self) -> bool:
        self.sent = not self._slow
        return self.sent

    def fileno(self) -> int:
        return self._socket.fileno()

    @property
    def ended(self) -> bool:
        return self._come.endswith(b".")

    def receive(self) -> None:
        self._come += self._socket.recv(100)
        if b"!" in self._come:
            raise ValueError
        self.partial = not self._come.endswith((b".", b"?"))

    def result(self) -> str:
        self.asked += 1
        if b"~" in self._come:
            raise ValueError
        return self._come.decode()


@pytest.fixture(autouse=True)
def closed() -> Iterator[None]:
    yield
    while OPEN:
        OPEN.pop().close()


def answered(text: bytes) -> Call:
    call = Call()
    call.peer.sendall(text)
    return call


def test_all_are_made_before_the_first_is_sent_and_sent_before_the_first_is_read() -> None:
    calls = [Call(), Call(), Call()]
    told: list[str] = []

    class Told(Call):
        def send(self) -> bool:
            told.append("send")
            if told.count("send") == 3:
                for n, call in enumerate(calls):
                    call.peer.sendall(b"%d." % n)
            return super().send()

        def result(self) -> str:
            told.append("result")
            return super().result()

    def ready(number: int) -> Call:
        told.append("ready")
        calls[number] = Told()
        return calls[number]

    ended, late = volley([0, 1, 2], ready)
    assert sorted(ended) == [(0, "0."), (1, "1."), (2, "2.")] and late == []
    assert told == ["ready"] * 3 + ["send"] * 3 + ["result"] * 3


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


def test_a_call_that_is_late_is_not_counted_to_those_beside_it() -> None:
    began = time.monotonic()
    (quick,), _ = timed_volley([answered(b"ok."), Call()], lambda call: call, patience=0.3)
    assert quick.at - began < 0.2 < time.monotonic() - began


def test_the_rest_of_an_answer_is_waited_for() -> None:
    call = answered(b"in pa")
    threading.Timer(0.02, call.peer.sendall, (b"rts.",)).start()
    assert volley([call], lambda one: one, patience=5) == ([(0, "in parts.")], [])


def test_what_fails_is_late_so_that_it_fails_again_where_it_is_seen_to() -> None:
    def ready(task: Call | None) -> Call:
        if task is None:
            raise ValueError
        return task

    broken, odd = answered(b"!"), answered(b"~.")
    assert volley([None, broken, odd], ready) == ([], [Late(0, None), Late(1, broken), Late(2, odd)])
    assert (broken.asked, odd.asked) == (0, 1)


def test_what_would_take_long_to_send_is_left_to_a_thread_of_its_own() -> None:
    slow = Call(slow=True)
    assert volley([slow], lambda call: call) == ([], [Late(0, None)])


def test_a_call_that_has_ended_by_being_sent_is_not_waited_for() -> None:
    refused = Call()
    refused._come = b"refused."
    started = time.monotonic()
    assert volley([refused], lambda call: call, patience=5) == ([(0, "refused.")], [])
    assert time.monotonic() - started < 2


def test_what_could_not_be_sent_in_time_is_left_to_threads_of_its_own() -> None:
    calls = [answered(b"%d." % n) for n in range(4)]

    def ready(number: int) -> Call:
        time.sleep(0.03)
        return calls[number]

    ended, late = volley([0, 1, 2, 3], ready, patience=0.05)
    assert ended == []
    assert late == [Late(n, None) for n in range(4)]
    assert not any(call.sent for call in calls)
