"""Lookup tables: what expressions of routes find by a key."""

from __future__ import annotations

from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import Connection, func, select

from esb_workers.store.engine import Cursor
from esb_workers.store.registrations import Registrations
from esb_workers.store.tables import lookup_table


class LookupTableRow(NamedTuple):
    """A lookup table as stored."""

    id: str
    name: str
    description: str | None
    entries: dict[str, Any]
    etag: int
    created_at: datetime
    updated_at: datetime


_rows = Registrations(lookup_table, LookupTableRow)
add, get, page, change, remove = _rows.add, _rows.get, _rows.page, _rows.change, _rows.remove


def count(connection: Connection) -> int:
    """How many there are."""
    return int(connection.execute(select(func.count()).select_from(lookup_table)).scalar_one())


def in_force(cursor: Cursor) -> dict[str, dict[str, Any]]:
    """The entries of every table, by its name."""
    cursor.execute("select name, entries from lookup_table")
    return dict(cursor.fetchall())
