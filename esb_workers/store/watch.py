"""Tells a database that is silent from one that is slow, and hangs up on the silent one.

A client of PostgreSQL waits for an answer for ever, and a server that is frozen or behind a link that swallows
everything still holds its connections open: neither a statement's time-out nor TCP's keep-alive ends that wait on a
local socket. So when a connection has been in use for `OVERDUE` seconds the server is asked, on a connection of its
own, whether it still talks. If it does, the statement is merely slow, and is left to its time-out. If not, every
waiting connection is shut down, which wakes its thread with an error, and until the server talks again whoever wants
a connection is told at once that there is none.
"""

from __future__ import annotations

import logging
import os
import socket
import threading
import time
from typing import Any, Final

import psycopg2
from sqlalchemy import Engine, event

log = logging.getLogger(__name__)

#: A connection in use for longer raises the question, seconds.
OVERDUE: Final = 1.5
#: The server has this long for its answer, seconds; libpq takes no less.
PATIENCE: Final = 2
_EVERY: Final = 0.25


class Watch:
    """Watches the connections of one engine, from a thread that starts with the first of them."""

    def __init__(self, engine: Engine, url: str) -> None:
        self.silent = False
        self._url = url
        self._lock = threading.Lock()
        self._used: dict[int, tuple[float, int]] = {}  # connection -> in use since when, its socket
        self._thread: threading.Thread | None = None
        self._closed = threading.Event()
        event.listen(engine, "checkout", self.taken)
        for end in ("checkin", "invalidate", "close"):
            event.listen(engine, end, self.returned)

    def close(self) -> None:
        """End the thread."""
        self._closed.set()

    def taken(self, connection: Any, *_: Any) -> None:
        """A connection is in use from now on."""
        if connection.closed:  # by the server, while it lay in the pool: whoever took it will see
            return
        with self._lock:
            self._used[id(connection)] = time.monotonic(), connection.fileno()
            if self._thread is None:  # not in __init__: the process may fork before it uses the engine
                self._thread = threading.Thread(target=self._look, name="database-watch", daemon=True)
                self._thread.start()

    def returned(self, connection: Any, *_: Any) -> None:
        """It is not any more."""
        # Before the connection can be closed: its socket's number must not be another's when it is shut down.
        with self._lock:
            self._used.pop(id(connection), None)

    def _look(self) -> None:
        while not self._closed.wait(_EVERY):
            since = min((since for since, _ in list(self._used.values())), default=None)
            if not self.silent and (since is None or time.monotonic() - since < OVERDUE):
                continue
            if self._talks():
                self.silent = False
                self._closed.wait(OVERDUE)  # slow, not silent: asked again, but not all the time
            elif not self.silent:
                self.silent = True
                log.error("the database does not answer; %d connections are given up", self._hang_up())
            else:
                self._hang_up()

    def _talks(self) -> bool:
        """Whether the server completes a login, or at least refuses one in words."""
        try:
            psycopg2.connect(self._url, connect_timeout=PATIENCE, application_name="esb watch").close()
        except psycopg2.OperationalError as error:
            return "timeout expired" not in str(error)
        return True

    def _hang_up(self) -> int:
        overdue = time.monotonic() - OVERDUE
        with self._lock:
            waiting = [fd for since, fd in self._used.values() if since < overdue]
            for fd in waiting:
                try:
                    with socket.socket(fileno=os.dup(fd)) as handle:
                        handle.shutdown(socket.SHUT_RDWR)
                except OSError:
                    pass  # it was closed from the other side
        return len(waiting)
