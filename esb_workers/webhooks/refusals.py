"""Refused requests, kept to be looked at. A few a second are written at once; more are gathered for half a second, and
at most so many of each ingress, so that a storm of forgeries is not answered with a storm of writes. What a killed
process had gathered is lost."""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter, deque
from collections.abc import Iterable
from typing import Final

from esb_workers.store import ingress as store
from esb_workers.store.engine import Database
from esb_workers.store.ingress import RefusalRow

log = logging.getLogger("esb.ingress")

DELAY: Final = 0.5  # seconds
#: Written at once in any second.
DIRECT: Final = 10
#: Of one ingress, in one writing.
MOST: Final = 50
#: Headers kept of a request, and characters of each value.
MOST_HEADERS, MOST_TEXT = 64, 200

#: Headers whose values say what came from where, and never a secret. Of others only the names are kept.
_HARMLESS: Final = frozenset({
    "accept", "content-length", "content-type", "date", "host", "user-agent", "webhook-id", "webhook-timestamp",
    "x-forwarded-for", "x-github-delivery", "x-github-event", "x-github-hook-id", "x-request-id",
})  # fmt: skip
REDACTED: Final = "[redacted]"


def shown_headers(headers: Iterable[tuple[str, str]], secret: str | None) -> dict[str, str]:
    """The headers of a request without what might be a secret; `secret` names the one that bears it."""
    bearer = (secret or "").lower()
    shown = {}
    for name, value in list(headers)[:MOST_HEADERS]:
        harmless = name.lower() in _HARMLESS and name.lower() != bearer
        shown[name[:MOST_TEXT]] = value[:MOST_TEXT].replace("\0", "") if harmless else REDACTED
    return shown


class Refusals:
    """What one process has refused and not written yet."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._lock = threading.Lock()
        self._waiting: list[RefusalRow] = []
        self._counts: Counter[str] = Counter()
        self._timer: threading.Timer | None = None
        self._written: deque[float] = deque(maxlen=DIRECT)

    def add(self, row: RefusalRow) -> None:
        """One more refused request."""
        with self._lock:
            self._counts[row.ingress_id] += 1
            if self._counts[row.ingress_id] > MOST:
                return
            self._waiting.append(row)
            now = time.monotonic()
            direct = len(self._written) < DIRECT or now - self._written[0] > 1
            if direct:
                self._written.append(now)
            elif self._timer is None:
                self._timer = threading.Timer(DELAY, self.write)
                self._timer.daemon = True
                self._timer.start()
        if direct:
            self.write()

    def write(self) -> None:
        """Write what is gathered. Never raises."""
        with self._lock:
            rows, self._waiting = self._waiting, []
            timer, self._timer = self._timer, None
            counts, self._counts = self._counts, Counter()
        if timer is not None:
            timer.cancel()
        for ingress_id, count in counts.items():
            if count > MOST:
                log.warning("%d refusals were not kept", count - MOST, extra={"ingress_id": ingress_id})
        if not rows:
            return
        try:
            with self._database.transaction() as connection:
                store.refuse(connection, rows)
        except Exception:
            log.warning("refused requests could not be kept", exc_info=True)
