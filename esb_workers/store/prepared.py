"""Statements that a connection parses and plans once: those that are executed for every message.

Where little is to do a statement finds nothing of what it needs in the processor's caches, and the parser and planner
are much of that [measured: a claim that finds nothing takes 510 µs every 5 ms as it is, 360 prepared; without a pause
200 either way].
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import count
from typing import Any, Final

import psycopg2
import psycopg2.errors
import psycopg2.extensions

#: The answer has changed its form since the statement was prepared, by an upgrade of the schema; or what is prepared in
#: a connection is not what we know of, as behind a pooler that gives a transaction any connection.
_OUTDATED: Final = (
    psycopg2.errors.FeatureNotSupported,
    psycopg2.errors.InvalidSqlStatementName,
    psycopg2.errors.DuplicatePreparedStatement,
)


class Outdated(psycopg2.OperationalError):
    """What a connection has prepared is of no use any more, and so is the connection."""


class Connection(psycopg2.extensions.connection):
    """psycopg2's, which also knows the statements that are prepared in it."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.prepared: set[str] = set()


class Prepared:
    """A statement with `%s` for each of its values. On connections that are not a Database's it is executed as it is."""

    def __init__(self, name: str, text: str) -> None:
        numbers = count(1)
        parts = text.split("%s")
        self._name = name
        self._text = text
        self._prepare = f"prepare {name} as " + "".join(f"{part}${next(numbers)}" for part in parts[:-1]) + parts[-1]
        self._execute = f"execute {name} ({', '.join(['%s'] * (len(parts) - 1))})"

    def execute(self, cursor: psycopg2.extensions.cursor, values: Sequence[Any]) -> None:
        """Execute it; the answer is the cursor's. Raises Outdated."""
        connection = cursor.connection
        if not isinstance(connection, Connection):
            cursor.execute(self._text, values)
            return
        try:
            if self._name not in connection.prepared:
                cursor.execute(self._prepare)
                connection.prepared.add(self._name)  # also where a transaction is rolled back: it stays prepared
            cursor.execute(self._execute, values)
        except _OUTDATED as error:
            raise Outdated(str(error)) from error
