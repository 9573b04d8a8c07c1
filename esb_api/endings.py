"""Which runs have just ended: tells the requests that wait for them."""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager

from esb_workers.errors import Unavailable
from esb_workers.store import notices
from esb_workers.store.engine import Database


class Endings:
    """One a process. What it says is a hint: look whether the run has ended."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._waiting: dict[str, set[threading.Event]] = defaultdict(set)
        self._lock = threading.Lock()
        self._listener = notices.Listener(database, "esb_ended", self._heard)

    @contextmanager
    def expected(self, execution_id: str) -> Iterator[threading.Event]:
        """Set when the run ends, if that is heard of. Tells the workers that somebody waits."""
        ended = threading.Event()
        with self._lock:
            self._waiting[execution_id].add(ended)
        try:
            self._listener.ensure()
            self._hurry()
            yield ended
        finally:
            with self._lock:
                left = self._waiting[execution_id]
                left.discard(ended)
                if not left:
                    del self._waiting[execution_id]

    def close(self) -> None:
        """Stop listening."""
        self._listener.close()

    def _hurry(self) -> None:
        try:
            with self._database.cursor() as cursor:
                notices.tell(cursor, "esb_started")
        except Unavailable:
            pass  # whoever waits will see

    def _heard(self, execution_id: str) -> None:
        with self._lock:
            for ended in self._waiting.get(execution_id, ()):
                ended.set()
