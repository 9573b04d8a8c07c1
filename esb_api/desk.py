"""One thread that answers many callers: what is asked at the same moment is read, stored and answered in one turn.

A thread for each request is the price of a request that waits. Those that send a message wait for one thing only, the
commit, and share it; with a thread each they would spend half their time waiting for one another to let go of the
interpreter. Here each request runs in a greenlet that steps aside where it would wait for the commit; when all have
come that far, their rows are written in one statement, and each goes on to its answer.

Whatever else may wait is not taken here but left to the pool of threads: `plain.read_plain` draws the line. And should
the database be slow to answer, another thread takes the desk over, as one of the pool would have taken the next
request.
"""

from __future__ import annotations

import logging
import select
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Final, Literal, Protocol

from flask import Response
from greenlet import getcurrent, greenlet

from esb_api.plain import MOST, OTHERWISE, PlainRequest, environment, read_plain, written
from esb_workers.store.group import Ticket, parking

log = logging.getLogger(__name__)

#: A connection stays at the desk for so long after it was last heard of, seconds.
LINGER: Final = 0.5
#: How often the desk looks whether a connection has been silent for that long, and whether the server ends, seconds.
TICK: Final = 0.1
#: When a turn takes longer than this, another thread takes the desk over, seconds.
PATIENCE: Final = 0.2
#: A caller that does not take its answer off the line is given up on after this, seconds.
SENDING: Final = 1.0

_EVENTS: Final = select.EPOLLIN | select.EPOLLONESHOT | select.EPOLLRDHUP

#: Why a connection leaves: there is a request for the pool, it is silent, or it is to be closed.
Why = Literal["wanted", "kept", "done"]


class Connection(Protocol):
    """What the desk needs of gunicorn's connection."""

    sock: Any
    parser: Any
    client: Any
    server: Any


@dataclass(slots=True)
class Seat:
    """A connection at the desk."""

    connection: Connection
    environ: dict[str, Any]
    heard: float  # monotonic
    read: bytes = b""  # and not answered yet
    ours: bool = False  # in a turn: neither waiting nor gone


class Desk:
    """Answers plain requests of the connections that sit at it.

    `answer` makes the answer of one request; `leave` is told of a connection that goes elsewhere, on the desk's
    thread; `serving` says whether the server goes on.
    """

    def __init__(
        self,
        paths: frozenset[bytes],
        answer: Callable[[dict[str, Any]], Response],
        leave: Callable[[Any, Why], None],
        *,
        serving: Callable[[], bool],
        threads: int,
    ) -> None:
        self._paths = paths
        self._make_answer = answer
        self._leave = leave
        self._serving = serving
        self._threads = threads
        self._epoll = select.epoll()
        self._seats: dict[int, Seat] = {}  # of those that wait for a request; who takes one out owns it
        self._hall = threading.Lock()  # around an entry there and what the poller knows of it
        self._some = threading.Event()
        self._starting = threading.Lock()
        self._counting = threading.Lock()  # around `_running`
        self._leader: threading.Thread | None = None
        self._running = 0
        self._turn_began = 0.0  # monotonic; 0: the leader waits for requests
        self._watching = False

    def take(self, connection: Connection) -> None:
        """Let a connection sit down: its next requests are answered here. From any thread."""
        connection.sock.setblocking(False)
        seat = Seat(connection, environment(connection.client, connection.server), time.monotonic())
        self._sit(seat, known=False)
        if not self._watching:
            self._ensure_threads()

    def serves(self, method: str, path: str, headers: Iterable[str]) -> bool:
        """Whether requests of this form are answered here; `headers`: their names in upper case."""
        return method == "POST" and path.encode() in self._paths and OTHERWISE.isdisjoint(headers)

    # --- threads -------------------------------------------------------------------------------------

    def _ensure_threads(self) -> None:
        # Started late: a thread made before a fork would not exist in the child.
        with self._starting:
            if not self._watching:
                self._lead()
                threading.Thread(target=self._watch, name="desk-watch", daemon=True).start()
                self._watching = True  # last: should there be no more threads, the next connection tries again

    def _lead(self) -> None:
        """Have a new thread take the desk; the one before it ends with its turn."""
        named = threading.Event()
        thread = threading.Thread(target=self._serve, args=(named,), name="desk", daemon=True)
        thread.start()  # before it is named: should there be no more threads, the leader of before stays
        with self._counting:
            self._running += 1
        self._turn_began = 0.0
        self._leader = thread
        named.set()

    def _watch(self) -> None:
        """Hand the desk to another thread when a turn takes long."""
        while True:
            self._some.wait()
            began = self._turn_began
            if began and time.monotonic() - began > PATIENCE and self._running < self._threads:
                try:
                    self._lead()
                except RuntimeError:
                    log.exception("no thread can be had to take the desk over")
            time.sleep(PATIENCE)

    def _serve(self, named: threading.Event) -> None:
        named.wait()
        me, look = threading.current_thread(), 0.0
        while self._leader is me:
            try:
                events = self._epoll.poll(TICK if self._seats else LINGER)
                now = time.monotonic()
                if events:
                    self._turn_began = now
                    self._turn(events, now)
                if now > look:
                    look = now + TICK
                    self._dismiss(now)
            except Exception:  # a defect: it costs the connections of this turn, and not the desk
                log.exception("the desk stumbled")
            if self._leader is me:
                self._turn_began = 0.0
        with self._counting:
            self._running -= 1

    # --- connections ---------------------------------------------------------------------------------

    def _sit(self, seat: Seat, *, known: bool = True) -> None:
        number = seat.connection.sock.fileno()
        with self._hall:
            # In this order: what the poller tells of must be found by whoever is told.
            self._seats[number] = seat
            if known:
                self._epoll.modify(number, _EVENTS)
            else:
                self._epoll.register(number, _EVENTS)
        self._some.set()

    def _rise(self, seat: Seat, why: Why) -> None:
        seat.ours = False
        self._epoll.unregister(seat.connection.sock.fileno())
        if seat.read:
            seat.connection.parser.unreader.unread(seat.read)
        try:
            self._leave(seat.connection, why)
        except Exception:  # such as a pool that takes nothing more, at the end
            log.exception("a connection could not be given on")
            seat.connection.sock.close()

    def _dismiss(self, now: float) -> None:
        """Give back the connections that have been silent for long; all of them when the server ends."""
        limit = now - LINGER if self._serving() else now
        for number in [n for n, seat in list(self._seats.items()) if seat.heard <= limit]:
            with self._hall:
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
        try:
            self._answer_turn(called, now)
        except BaseException:
            for seat in called:
                if seat.ours:
                    self._rise(seat, "done")
            raise

    def _answer_turn(self, called: list[Seat], now: float) -> None:
        for seat in called:
            seat.ours = True
        asking = [(seat, request) for seat in called if (request := self._hear(seat, now)) is not None]
        while asking:
            kept = self._answer_all(asking)
            asking = []
            for seat in kept:
                # What was sent behind the request is read already, and makes no socket readable.
                if not seat.read:
                    self._let_sit(seat)
                elif (request := self._request(seat)) is not None:
                    asking.append((seat, request))

    def _let_sit(self, seat: Seat) -> None:
        """To wait for its next request; from here on it may be another thread's."""
        seat.heard, seat.ours = time.monotonic(), False
        self._sit(seat)

    def _hear(self, seat: Seat, now: float) -> PlainRequest | None:
        """What a connection asks; None if that is not for the desk: then it has left, or waits again."""
        seat.heard = now
        try:
            data = seat.connection.sock.recv(MOST)
        except BlockingIOError:
            self._let_sit(seat)  # the event was for the one that sat here before
            return None
        except OSError:
            data = b""
        if not data:
            self._rise(seat, "done")
            return None
        seat.read += data
        return self._request(seat)

    def _request(self, seat: Seat) -> PlainRequest | None:
        request = read_plain(seat.read, self._paths, seat.environ)
        if request is None:
            self._rise(seat, "wanted")
            return None
        seat.read = seat.read[request.size :]
        return request

    def _answer_all(self, asking: Iterable[tuple[Seat, PlainRequest]]) -> list[Seat]:
        """Answer them; those whose connections may be kept."""
        kept: list[Seat] = []
        parked: list[tuple[greenlet, Ticket[Any, Any]]] = []
        for seat, request in asking:
            child = greenlet(self._answer)
            ticket = child.switch(seat, request, kept)
            if ticket is not None:
                parked.append((child, ticket))
        while parked:
            _write([ticket for _, ticket in parked])
            parked = [(child, ticket) for child, _ in parked if (ticket := child.switch()) is not None]
        return kept

    def _answer(self, seat: Seat, request: PlainRequest, kept: list[Seat]) -> None:
        desk = getcurrent().parent
        assert desk is not None
        parking.set(desk.switch)
        try:
            response = self._make_answer(request.environ)
            keep = self._serving()
            _send(seat.connection.sock, written(response, keep=keep))
        except OSError:
            keep = False  # the caller has gone, or does not listen
        except Exception:
            log.exception("a request could not be answered")
            keep = False
        if keep:
            kept.append(seat)
        else:
            self._rise(seat, "done")


def _send(sock: Any, data: bytes) -> None:
    try:
        sent = sock.send(data)
    except BlockingIOError:
        sent = 0
    if sent < len(data):
        sock.settimeout(SENDING)
        sock.sendall(data[sent:])
        sock.settimeout(0)


def _write(tickets: list[Ticket[Any, Any]]) -> None:
    for group in {ticket.group for ticket in tickets}:
        group.write([ticket for ticket in tickets if ticket.group is group])
