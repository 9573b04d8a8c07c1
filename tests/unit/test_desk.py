"""The desk: one thread answers many callers, and never waits for one of them alone."""

from __future__ import annotations

import queue
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from types import SimpleNamespace
from typing import Any

import pytest
from flask import Response
from gunicorn.config import Config
from gunicorn.http import get_parser

from esb_api.desk import Desk
from esb_workers.store.group import Group

PATHS = frozenset((b"/send",))
LOCAL = ("127.0.0.1", 1)
Eventually = Callable[..., None]


def request(body: bytes = b"{}", *headers: str) -> bytes:
    lines = ["POST /send HTTP/1.1", "Host: bus", f"Content-Length: {len(body)}", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


# --- a turn ----------------------------------------------------------------------------------------------


class Hall:
    """A desk, callers with real sockets, and a group whose writing the test holds up."""

    def __init__(self) -> None:
        self.written: list[list[bytes]] = []
        self.left: queue.Queue[tuple[Any, str]] = queue.Queue()
        self.gone = 0
        self.open = True
        self.may_write = threading.Event()
        self.may_write.set()
        self.group: Group[bytes, bytes] = Group(self._write)
        self.desk = Desk(PATHS, self._answer, self._leave, serving=lambda: self.open, threads=4)
        self.sockets: list[socket.socket] = []

    def _write(self, items: Sequence[bytes]) -> list[bytes]:
        self.written.append(list(items))
        assert self.may_write.wait(10)
        if b"bad" in items:
            raise ValueError("bad")
        return [item.upper() for item in items]

    def _answer(self, environ: dict[str, Any]) -> Response:
        try:
            return Response(self.group.add(environ["wsgi.input"].read()))
        except ValueError:
            return Response(b"refused", 422)

    def _leave(self, conn: Any, why: str) -> None:
        self.left.put((conn, why))
        self.gone += 1

    def caller(self) -> socket.socket:
        """A new connection that sits at the desk, from the caller's side."""
        ours, theirs = socket.socketpair()
        theirs.settimeout(10)
        conn = SimpleNamespace(sock=ours, parser=get_parser(Config(), ours, LOCAL), client=LOCAL, server=LOCAL)
        self.desk.take(conn)
        self.sockets += ours, theirs
        return theirs


@pytest.fixture
def hall(eventually: Eventually) -> Iterator[Hall]:
    made = Hall()
    yield made
    made.may_write.set()
    made.open = False
    eventually(lambda: made.gone == len(made.sockets) // 2)
    for one in made.sockets:
        one.close()


def answer(caller: socket.socket) -> bytes:
    return caller.recv(1000).partition(b"\r\n\r\n")[2]


def test_requests_of_the_same_moment_share_one_write(hall: Hall, eventually: Eventually) -> None:
    first, others = hall.caller(), [hall.caller() for _ in range(5)]
    hall.may_write.clear()
    first.sendall(request(b"first"))
    eventually(lambda: hall.written == [[b"first"]])
    for n, caller in enumerate(others):
        caller.sendall(request(b"n%d" % n))
    hall.may_write.set()
    assert answer(first) == b"FIRST"
    assert [answer(caller) for caller in others] == [b"N%d" % n for n in range(5)]
    assert sorted(item for items in hall.written[1:] for item in items) == [b"n%d" % n for n in range(5)]
    assert len(hall.written) < 6


def test_one_that_cannot_be_written_fails_its_own_caller_alone(hall: Hall, eventually: Eventually) -> None:
    first, good, bad = hall.caller(), hall.caller(), hall.caller()
    hall.may_write.clear()
    first.sendall(request(b"first"))
    eventually(lambda: hall.written == [[b"first"]])
    good.sendall(request(b"good"))
    bad.sendall(request(b"bad"))
    hall.may_write.set()
    assert answer(good) == b"GOOD"
    assert answer(bad) == b"refused"


def test_requests_sent_one_behind_the_other_are_answered_in_turn(hall: Hall) -> None:
    caller = hall.caller()
    caller.sendall(request(b"a") + request(b"b") + request(b"c"))
    received = b""
    while not received.endswith(b"C"):
        received += caller.recv(1000)
    assert [part[-1:] for part in received.split(b"HTTP/1.1 200 OK")[1:]] == [b"A", b"B", b"C"]


def test_what_is_not_for_the_desk_leaves_it_with_every_byte(hall: Hall) -> None:
    caller = hall.caller()
    asked = request(b"x" * 50, "Prefer: wait=1")
    caller.sendall(asked)
    conn, why = hall.left.get(timeout=10)
    assert (why, conn.parser.unreader.take_buffered()) == ("wanted", asked)


def test_half_a_request_goes_to_the_pool_which_may_wait_for_the_rest(hall: Hall) -> None:
    caller = hall.caller()
    caller.sendall(request(b"whole")[:-2])
    _, why = hall.left.get(timeout=10)
    assert why == "wanted"


def test_only_what_waits_for_nothing_but_the_commit_is_served(hall: Hall) -> None:
    assert hall.desk.serves("POST", "/send", ["HOST", "X-API-KEY"])
    assert not hall.desk.serves("POST", "/send", ["HOST", "PREFER"])
    assert not hall.desk.serves("POST", "/other", [])
    assert not hall.desk.serves("GET", "/send", [])


def test_a_silent_connection_goes_back(hall: Hall) -> None:
    caller = hall.caller()
    caller.sendall(request())
    assert answer(caller) == b"{}"
    _, why = hall.left.get(timeout=10)
    assert why == "kept"


def test_a_caller_that_hangs_up_is_done(hall: Hall) -> None:
    hall.caller().close()
    assert hall.left.get(timeout=10)[1] == "done"


def test_while_a_turn_waits_for_the_database_another_thread_answers(hall: Hall, eventually: Eventually) -> None:
    stuck, next_one = hall.caller(), hall.caller()
    hall.may_write.clear()
    stuck.sendall(request(b"stuck"))
    eventually(lambda: hall.written == [[b"stuck"]])
    next_one.sendall(request(b"next"))
    eventually(lambda: hall.written == [[b"stuck"], [b"next"]])
    hall.may_write.set()
    assert (answer(stuck), answer(next_one)) == (b"STUCK", b"NEXT")
    stuck.sendall(request(b"again"))
    assert answer(stuck) == b"AGAIN"


def test_the_desk_is_taken_over_as_often_as_it_is_held_up(hall: Hall, eventually: Eventually) -> None:
    callers = [hall.caller() for _ in range(2)]
    for turn in range(3):
        hall.may_write.clear()
        before = len(hall.written)
        for number, caller in enumerate(callers):
            caller.sendall(request(b"%d" % turn))
            eventually(lambda number=number, before=before: len(hall.written) == before + number + 1)
        hall.may_write.set()
        assert [answer(caller) for caller in callers] == [b"%d" % turn] * 2


def test_a_fault_of_the_desk_costs_the_connections_of_its_turn_alone(
    hall: Hall, monkeypatch: pytest.MonkeyPatch
) -> None:
    faulty, other = hall.caller(), hall.caller()
    with monkeypatch.context() as patched:
        patched.setattr(hall.desk, "_answer_all", lambda asking: 1 / 0)
        faulty.sendall(request())
        assert hall.left.get(timeout=10)[1] == "done"
    other.sendall(request(b"x"))
    assert answer(other) == b"X"


def test_when_the_server_ends_all_connections_leave(hall: Hall) -> None:
    for _ in range(3):
        hall.caller()
    hall.open = False
    assert [hall.left.get(timeout=10)[1] for _ in range(3)] == ["kept"] * 3


def test_an_answer_larger_than_the_line_holds_is_sent_whole(hall: Hall) -> None:
    caller = hall.caller()
    caller.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
    body = b"y" * 16_000
    caller.sendall(request(body))
    received = b""
    while not received.endswith(b"Y" * len(body)):
        received += caller.recv(4096)
