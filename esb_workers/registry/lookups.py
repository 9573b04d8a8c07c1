"""The lookup tables that expressions of a process see, good for the revision they were read at."""

from __future__ import annotations

import threading

from esb_workers.expressions.functions import Host
from esb_workers.store import lookup_tables, revision
from esb_workers.store.engine import Database


class Lookups:
    """Every lookup table. One a process; safe for threads. What is bound is `host`."""

    def __init__(self) -> None:
        # Replaced as a whole, never changed in place: an evaluation under way goes on with the tables it began with.
        self.host = Host(tables={})
        self._revision = -1
        self._tables: int | None = None
        self._lock = threading.Lock()

    def refresh(self, database: Database, at_least: int) -> Host:
        """Know the tables as of a revision; they are read only if one of them has changed. Raises Unavailable."""
        if self._revision < at_least:
            with self._lock, database.cursor() as cursor:
                # The number first: tables read after it may be newer than it says, never older.
                topics = revision.by_topic(cursor)
                if topics["lookup_tables"] != self._tables:
                    self.host = Host(tables=lookup_tables.in_force(cursor))
                    self._tables = topics["lookup_tables"]
                self._revision = sum(topics.values())
        return self.host
