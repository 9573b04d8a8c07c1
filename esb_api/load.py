"""Whether the bus can take more: beyond what it can bear, new work is refused at once instead of slowing everybody.

Two signs are heeded. The backlog, looked at once a second while requests come, by a thread of its own: no request
waits for that. And the database's silence: as long as an accept of this process has been under way for too long,
others are not begun.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from esb_api.metrics import Metrics
from esb_workers.errors import Overloaded, Unavailable
from esb_workers.store import figures
from esb_workers.store.engine import Database

log = logging.getLogger(__name__)

#: The backlog is looked at so often, seconds; nobody having asked for IDLE seconds, no more.
EVERY, IDLE = 1.0, 10.0
#: Once over the limit, work is taken again when the backlog has come down to this share of it.
RELIEVED: Final = 0.9
#: What `Retry-After` says, seconds.
BACKLOG_PAUSE, DATABASE_PAUSE = 5, 2


class Load:
    """One a process; safe for threads. `max_backlog`: rows, 0 is no limit; `max_wait_ms`: of one accept."""

    def __init__(self, database: Database, metrics: Metrics, max_backlog: int, max_wait_ms: int) -> None:
        self._database = database
        self._metrics = metrics
        self._max_backlog = max_backlog
        self._max_wait = max_wait_ms / 1000
        self._under_way: dict[object, float] = {}  # in the order in which they began
        self._lock = threading.Lock()
        self._asked = 0.0
        self._watch: threading.Thread | None = None
        self._too_much = False

    @contextmanager
    def place(self) -> Iterator[None]:
        """Around the accepting of work. Raises Overloaded instead of beginning it."""
        now = time.monotonic()
        self._admit(now)
        mine = object()  # not the thread, which may answer several requests in turns
        with self._lock:
            self._under_way[mine] = now
        try:
            yield
        finally:
            with self._lock:
                del self._under_way[mine]

    def _admit(self, now: float) -> None:
        with self._lock:
            oldest = next(iter(self._under_way.values()), now)
            self._asked = now
            if self._max_backlog and self._watch is None:
                self._watch = threading.Thread(target=self._look, name="load-watch", daemon=True)
                self._watch.start()
        if self._too_much:
            self._metrics.shed("backlog")
            raise Overloaded("Too much is waiting to be delivered.", retry_after=BACKLOG_PAUSE)
        if now - oldest > self._max_wait:
            self._metrics.shed("database")
            raise Overloaded("The database answers too slowly.", retry_after=DATABASE_PAUSE)

    def _look(self) -> None:
        while True:
            self._judge()
            time.sleep(EVERY)
            with self._lock:
                if time.monotonic() - self._asked > IDLE:
                    self._watch = None
                    self._too_much = False
                    return

    def _judge(self) -> None:
        limit = round(self._max_backlog * RELIEVED) if self._too_much else self._max_backlog
        try:
            with self._database.cursor() as cursor:
                too_much = figures.backlog_exceeds(cursor, limit)
        except Unavailable:
            return  # whoever asks meets the same
        except Exception:
            log.exception("the backlog could not be looked at")
            return
        if too_much != self._too_much:
            log.warning("new work is %s: the backlog", "refused" if too_much else "taken again")
        self._too_much = too_much
