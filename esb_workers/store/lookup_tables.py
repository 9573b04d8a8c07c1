"""Lookup tables: what expressions of routes find by a key."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import Connection, delete, func, insert, select, update

from esb_workers.store.engine import Cursor
from esb_workers.store.ids import new_id
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


def add(connection: Connection, values: dict[str, Any]) -> LookupTableRow:
    """A new table. A name that is taken violates `lookup_table_name`."""
    statement = insert(lookup_table).values(id=new_id(), **values).returning(*lookup_table.c)
    return LookupTableRow(*connection.execute(statement).one())


def get(connection: Connection, table_id: str, *, lock: bool = False) -> LookupTableRow | None:
    """One table; `lock` keeps others from changing it until the transaction ends."""
    query = select(lookup_table).where(lookup_table.c.id == table_id)
    row = connection.execute(query.with_for_update() if lock else query).first()
    return LookupTableRow(*row) if row else None


def count(connection: Connection) -> int:
    """How many there are."""
    return int(connection.execute(select(func.count()).select_from(lookup_table)).scalar_one())


def page(
    connection: Connection, limit: int, after: str | None, *, name: Sequence[str] | None = None
) -> list[LookupTableRow]:
    """Tables, newest first, one more than `limit` if there are more."""
    query = select(lookup_table).order_by(lookup_table.c.id.desc()).limit(limit + 1)
    if after is not None:
        query = query.where(lookup_table.c.id < after)
    if name is not None:
        query = query.where(func.lower(lookup_table.c.name).in_([one.lower() for one in name]))
    return [LookupTableRow(*row) for row in connection.execute(query)]


def change(connection: Connection, table_id: str, values: dict[str, Any]) -> LookupTableRow:
    """Write `values` as the table's next version."""
    statement = (
        update(lookup_table)
        .where(lookup_table.c.id == table_id)
        .values(**values, etag=lookup_table.c.etag + 1, updated_at=func.now())
        .returning(*lookup_table.c)
    )
    return LookupTableRow(*connection.execute(statement).one())


def remove(connection: Connection, table_id: str) -> None:
    """Delete a table."""
    connection.execute(delete(lookup_table).where(lookup_table.c.id == table_id))


def in_force(cursor: Cursor) -> dict[str, dict[str, Any]]:
    """The entries of every table, by its name."""
    cursor.execute("select name, entries from lookup_table")
    return dict(cursor.fetchall())
