"""One thread that answers many callers: what is asked at the same moment is read, stored and answered in one turn.

A thread for each request is the price of a request that waits. Those of the front door wait for one thing only, the
commit, and share it; with a thread each they would spend half their time waiting for one another to let go of the
interpreter. Here each request runs in a greenlet that steps aside where it would wait for the commit; when all have
come that far, their rows are written in one statement, and each goes on to its answer.

Whatever else may wait is not taken here but left to the pool of threads: `small_request` draws the line. And should
the database be slow to answer, another thread takes the desk over, as one of the pool would have taken the next
request.
"""

from __future__ import annotations

import logging
import re
import select
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Final, Protocol

from greenlet import getcurrent, greenlet

from esb_workers.store.group import Ticket, parking

log = logging.getLogger(__name__)

#: A connection stays at the desk for so long after it was last heard of, seconds.
LINGER: Final = 0.5
#: How often the desk looks whether a connection has been silent for that long, and whether the server ends, seconds.
TICK: Final = 0.1
#: When a turn takes longer than this, another thread takes the desk over, seconds.
PATIENCE: Final = 0.2
#: A larger request keeps the others waiting for too long, bytes.
MOST: Final = 16_384
#: A caller that does not take its answer off the line is given up on after this, seconds.
SENDING: Final = 1.0

_FORM: Final = re.compile(rb"POST (/[!-~]*) HTTP/1\.1\r\n")
_LENGTH: Final = re.compile(rb"\r\ncontent-length:[ \t]*(\d{1,9})[ \t]*(?=\r\n)")
#: Requests with these wait for more than the commit, or are read in another way.
_OTHERWISE: Final = re.compile(rb"\r\n(?:prefer|idempotency-key|transfer-encoding|expect|upgrade|connection)[ \t]*:")
_EVENTS: Final = select.EPOLLIN | select.EPOLLONESHOT | select.EPOLLRDHUP


def small_request(data: bytes, paths: frozenset[bytes]) -> bool:
    """Whether `data` begins with a whole request of the kind that is answered at the desk."""
    form = _FORM.match(data)
    if form is None or form[1] not in paths:
        return False
    end = data.find(b"\r\n\r\n")
    if end < 0:
        return False
    head = data[: end + 2].lower()
    length = _LENGTH.findall(head)
    return len(length) == 1 and end + 4 + int(length[0]) <= len(data) and _OTHERWISE.search(head) is None


class Connection(Protocol):
    """What the desk needs of gunicorn's connection."""

    sock: Any
    parser: Any


@dataclass(slots=True)
class Seat:
    """A connection at the desk."""

    connection: Connection
    heard: float  # monotonic


class Answer:
    """Stands for the socket while an answer is made: what is to be sent is gathered, and sent at once."""

    def __init__(self, sock: Any) -> None:
        self._sock = sock
        self._parts: list[bytes] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._sock, name)

    def setblocking(self, _: bool) -> None:
        """Nothing: the socket stays as the desk needs it."""

    def sendall(self, data: bytes) -> None:
        """Gather."""
        self._parts.append(data)

    send = sendall

    def leave(self) -> None:
        """Send all of it. Raises OSError."""
        data = b"".join(self._parts)
        try:
            sent = self._sock.send(data)
        except BlockingIOError:
            sent = 0
        if sent < len(data):
            self._sock.settimeout(SENDING)
            self._sock.sendall(data[sent:])
            self._sock.settimeout(0)


class Desk:
    """Answers small requests of the connections that sit at it.

    `handle` answers one request of a connection and says whether that may be kept; `leave` is told of a connection
    that goes elsewhere: `wanted` (there is a request for the pool), `kept` (silent) or `done` (to be closed).
    """

    def __init__(
        self,
        paths: frozenset[bytes],
        handle: Callable[[Any], Any],
        leave: Callable[[Any, str], None],
        *,
        open_: Callable[[], bool],
        threads: int,
    ) -> None:
        self._paths = paths
        self._handle = handle
        self._leave = leave
        self._open = open_
        self._threads = threads
        self._epoll = select.epoll()
        self._seats: dict[int, Seat] = {}  # of those that wait for a request; who takes one out owns it
        self._some = threading.Event()
        self._start = threading.Lock()
        self._leader: threading.Thread | None = None
        self._running = 0
        self._turn_began = 0.0  # monotonic; 0: the leader waits for requests
        self._watching = False

    def take(self, connection: Connection) -> None:
        """Let a connection sit down: its next requests are answered here. From any thread."""
        connection.sock.setblocking(False)
        self._sit(Seat(connection, time.monotonic()), known=False)
        self._some.set()
        if not self._watching:
            self._ensure_threads()

    # --- threads -------------------------------------------------------------------------------------

    def _ensure_threads(self) -> None:
        # Started late: a thread made before a fork would not exist in the child.
        with self._start:
            if not self._watching:
                self._watching = True
                self._lead()
                threading.Thread(target=self._watch, name="desk-watch", daemon=True).start()

    def _lead(self) -> None:
        self._turn_began = 0.0
        self._running += 1
        self._leader = threading.Thread(target=self._serve, name="desk", daemon=True)
        self._leader.start()

    def _watch(self) -> None:
        """Hand the desk to another thread when a turn takes long."""
        while True:
            self._some.wait()
            began = self._turn_began
            if began and time.monotonic() - began > PATIENCE and self._running < self._threads:
                self._lead()
            time.sleep(PATIENCE)

    def _serve(self) -> None:
        me, look = threading.current_thread(), 0.0
        while self._leader is me:
            events = self._epoll.poll(TICK if self._seats else LINGER)
            now = time.monotonic()
            if events:
                self._turn_began = now
                try:
                    self._turn(events, now)
                except Exception:  # a defect: it costs the connections of this turn, and not the desk
                    log.exception("the desk stumbled")
                if self._leader is me:
                    self._turn_began = 0.0
            if now > look:
                look = now + TICK
                self._dismiss(now)
        self._running -= 1

    # --- connections ---------------------------------------------------------------------------------

    def _sit(self, seat: Seat, *, known: bool = True) -> None:
        number = seat.connection.sock.fileno()
        # In this order: what the poller tells of must be found by whoever is told.
        self._seats[number] = seat
        if known:
            self._epoll.modify(number, _EVENTS)
        else:
            self._epoll.register(number, _EVENTS)

    def _rise(self, seat: Seat, why: str) -> None:
        self._epoll.unregister(seat.connection.sock.fileno())
        self._leave(seat.connection, why)

    def _dismiss(self, now: float) -> None:
        """Give back the connections that have been silent for long; all of them when the server ends."""
        limit = now - LINGER if self._open() else now
        for number in [n for n, seat in list(self._seats.items()) if seat.heard <= limit]:
            seat = self._seats.pop(number, None)
            if seat is not None:
                self._rise(seat, "kept")
        if not self._seats:
            self._some.clear()
            if self._seats:  # one came in between
                self._some.set()

    # --- a turn --------------------------------------------------------------------------------------

    def _turn(self, events: Iterable[tuple[int, int]], now: float) -> None:
        called = [seat for number, _ in events if (seat := self._seats.pop(number, None)) is not None]
        while called:
            kept = self._answer_all(seat for seat in called if self._asks(seat, now))
            called = []
            for seat in kept:
                # Bytes that were read too far make no socket readable.
                if seat.connection.parser.unreader.buf.getvalue():
                    called.append(seat)
                else:
                    self._sit(seat)

    def _asks(self, seat: Seat, now: float) -> bool:
        """Read what a connection sends; whether it is for the desk. If not, the connection has left."""
        seat.heard = now
        unreader = seat.connection.parser.unreader
        data = unreader.take_buffered()
        try:
            data += seat.connection.sock.recv(MOST)
        except BlockingIOError:
            pass
        except OSError:
            data = b""
        unreader.unread(data)
        if not data:
            self._rise(seat, "done")
            return False
        if not small_request(data, self._paths):
            self._rise(seat, "wanted")
            return False
        return True

    def _answer_all(self, seats: Iterable[Seat]) -> list[Seat]:
        """Answer them; those whose connections may be kept."""
        kept: list[Seat] = []
        parked: list[tuple[greenlet, Ticket[Any, Any]]] = []
        for seat in seats:
            child = greenlet(self._answer)
            ticket = child.switch(seat, kept)
            if ticket is not None:
                parked.append((child, ticket))
        while parked:
            _write([ticket for _, ticket in parked])
            parked = [(child, ticket) for child, _ in parked if (ticket := child.switch()) is not None]
        return kept

    def _answer(self, seat: Seat, kept: list[Seat]) -> None:
        desk = getcurrent().parent
        assert desk is not None
        parking.set(desk.switch)
        connection, sock = seat.connection, seat.connection.sock
        connection.sock = answer = Answer(sock)
        try:
            keep = self._handle(connection) is True
            answer.leave()
        except OSError:
            keep = False
        finally:
            connection.sock = sock
        if keep:
            kept.append(seat)
        else:
            self._rise(seat, "done")


def _write(tickets: list[Ticket[Any, Any]]) -> None:
    for group in {ticket.group for ticket in tickets}:
        group.write([ticket for ticket in tickets if ticket.group is group])
