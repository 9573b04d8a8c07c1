"""The revisions of the registrations as this process has last seen them.

The front door decides by what it remembers. What it decided goes with the topics and the numbers that it was decided
by, and stands only if the transaction that acts on it, or `hold`, finds them unmoved.
"""

from __future__ import annotations

from esb_workers.store import revision
from esb_workers.store.engine import Database
from esb_workers.store.revision import Known


class Revisions:
    """The number of each topic. One a process; safe for threads."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._last: Known = {}  # replaced as a whole: threads need no lock

    def refresh(self) -> Known:
        """The present numbers. Raises Unavailable."""
        with self._database.cursor() as cursor:
            self._last = revision.by_topic(cursor)
        return self._last

    def last(self) -> Known:
        """Those last seen, for decisions that are checked against the present ones later. Raises Unavailable."""
        return self._last or self.refresh()

    def hold(self, known: Known) -> bool:
        """Whether nothing has moved of what something was decided by. Raises Unavailable."""
        return known.items() <= self.refresh().items()
