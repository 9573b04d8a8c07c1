"""Statements that a connection parses and plans once: those that are executed for every message.

Where little is to do a statement finds nothing of what it needs in the processor's caches, and the parser and planner
are much of that [measured: a claim that finds nothing takes 510 µs every 5 ms as it is, 360 prepared; without a pause
200 either way].
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from itertools import count
from typing import Any, Final

import psycopg2
import psycopg2.errors
import psycopg2.extensions

log = logging.getLogger(__name__)

#: What is prepared in a connection is not what we know of, as behind a pooler that gives each transaction another one.
_NOT_OURS: Final = (psycopg2.errors.InvalidSqlStatementName, psycopg2.errors.DuplicatePreparedStatement)


class Outdated(psycopg2.OperationalError):
    """What a connection has prepared is of no use any more, and neither is the connection."""


class Connection(psycopg2.extensions.connection):
    """psycopg2's, which also knows the statements that are prepared in it.

    Without an `__init__` of its own: where no connection can be had, the traceback of the error would hold on to the one
    that failed, with its socket, until the garbage collector comes by.
    """

    prepared: frozenset[str] = frozenset()


class Prepared:
    """A statement with `%s` for each of its values.

    It is executed as it is on connections that are not a Database's, and in a process that meets a pooler in between.
    """

    def __init__(self, name: str, text: str) -> None:
        numbers = count(1)
        parts = text.split("%s")
        # A pooler's connections are those of all: what another release calls so must not be taken for ours.
        name += "_" + hashlib.sha256(text.encode()).hexdigest()[:8]
        self._name = name
        self._text = text
        self._as_it_is = False
        self._prepare = f"prepare {name} as " + "".join(f"{part}${next(numbers)}" for part in parts[:-1]) + parts[-1]
        self._execute = f"execute {name} ({', '.join(['%s'] * (len(parts) - 1))})"

    def execute(self, cursor: psycopg2.extensions.cursor, values: Sequence[Any]) -> None:
        """Execute it; the answer is the cursor's. Raises Outdated."""
        connection = cursor.connection
        if self._as_it_is or not isinstance(connection, Connection):
            cursor.execute(self._text, values)
            return
        try:
            if self._name not in connection.prepared:
                cursor.execute(self._prepare)
                connection.prepared |= {self._name}  # also where a transaction is rolled back: it stays prepared
            cursor.execute(self._execute, values)
        except psycopg2.errors.FeatureNotSupported as error:  # an upgrade has changed the form of its answer
            raise Outdated(str(error)) from error
        except _NOT_OURS as error:
            self._as_it_is = True
            log.warning("connections change in between, so %s is parsed each time", self._name)
            if connection.info.transaction_status != psycopg2.extensions.TRANSACTION_STATUS_IDLE:
                raise Outdated(str(error)) from error
            cursor.execute(self._text, values)
