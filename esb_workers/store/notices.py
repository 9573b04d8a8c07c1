"""Word from process to process by PostgreSQL's NOTIFY. A hint that saves a look; nobody relies on it.

It is given in a statement of its own, after the commit that it tells of. Inside that transaction it would hold a lock
over the whole server until the disk has answered, and make commits take turns; by itself it writes nothing and the
lock is gone in microseconds. A word that is lost, or not given under load, is made good by the poll it saves.
"""

from __future__ import annotations

import logging
import select
import threading
from collections.abc import Callable
from typing import Final, Literal

import psycopg2

from esb_workers.store.engine import Cursor, Database

log = logging.getLogger(__name__)

#: `esb_ended`: a run has ended; its id. `esb_started`: somebody waits for a run that was just started. `esb_routing`,
#: `esb_delivery`: there is a row for that pool.
Channel = Literal["esb_ended", "esb_started", "esb_routing", "esb_delivery"]
#: Between tries to listen, and between looks whether to stop, seconds.
PAUSE: Final = 1.0


def tell(cursor: Cursor, channel: Channel, text: str = "") -> None:
    """Give word to whoever listens. To be called in autocommit, after the commit it tells of."""
    cursor.execute("select pg_notify(%s, %s)", (channel, text))


def hint(cursor: Cursor, channel: Channel) -> None:
    """The same for those to whom it does not matter whether it can be given."""
    try:
        tell(cursor, channel)
    except psycopg2.Error as error:
        log.debug("no word could be given on %s: %s", channel, error)


class Listener:
    """Hears one channel, in a thread and on a connection of its own, from the first `ensure` on."""

    def __init__(self, database: Database, channel: Channel, heard: Callable[[str], None]) -> None:
        self._database = database
        self._channel = channel
        self._heard = heard
        self._closed = threading.Event()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    def ensure(self) -> None:
        """Listen from now on. Not done at once when made: the process may fork before."""
        if self._thread is None:
            with self._lock:
                if self._thread is None:
                    thread = threading.Thread(target=self._run, name=f"listen-{self._channel}", daemon=True)
                    thread.start()
                    self._thread = thread

    def close(self) -> None:
        """Stop listening."""
        self._closed.set()

    def _run(self) -> None:
        while not self._closed.is_set():
            try:
                self._listen()
            except (psycopg2.Error, OSError) as error:
                log.debug("nobody is heard on %s for now: %s", self._channel, error)
                self._closed.wait(PAUSE)
            except Exception:  # without this thread nobody would ever be heard again
                log.exception("nobody is heard on %s for now", self._channel)
                self._closed.wait(PAUSE)

    def _listen(self) -> None:
        connection = psycopg2.connect(
            self._database.url,
            connect_timeout=3,
            application_name="esb listener",
            keepalives_idle=10,
            keepalives_interval=5,
            keepalives_count=3,
        )
        try:
            connection.autocommit = True
            with connection.cursor() as cursor:
                cursor.execute(f"listen {self._channel}")
            poll = select.poll()  # and not `select`, which knows only the first 1024 descriptors
            poll.register(connection.fileno(), select.POLLIN)
            while not self._closed.is_set():
                if poll.poll(PAUSE * 1000):
                    connection.poll()
                while connection.notifies:
                    self._heard(connection.notifies.pop(0).payload)
        finally:
            connection.close()
