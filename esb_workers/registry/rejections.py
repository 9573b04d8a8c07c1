"""Refused requests, counted per client and hour. Gathered for half a second, so that a storm of refusals is not
answered with a storm of writes; what a killed process had gathered is lost."""

from __future__ import annotations

import logging
import threading
from collections import Counter
from typing import Final

from esb_workers.store import clients as store
from esb_workers.store.engine import Database

log = logging.getLogger("esb.clients")

DELAY: Final = 0.5  # seconds


class Rejections:
    """The counts of one process that are not written yet."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._lock = threading.Lock()
        self._counts: Counter[str] = Counter()
        self._timer: threading.Timer | None = None

    def add(self, client_id: str) -> None:
        """One more refused request."""
        with self._lock:
            self._counts[client_id] += 1
            if self._timer is None:
                self._timer = threading.Timer(DELAY, self.write)
                self._timer.daemon = True
                self._timer.start()

    def write(self) -> None:
        """Write what is gathered. Never raises."""
        with self._lock:
            counts, self._counts, self._timer = self._counts, Counter(), None
        if not counts:
            return
        try:
            with self._database.transaction() as connection:
                store.add_rejected(connection, dict(counts))
        except Exception:
            log.warning("counts of refused requests could not be written", exc_info=True)
