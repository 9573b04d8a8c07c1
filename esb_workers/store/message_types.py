"""The catalogue: message types, and the versions of their schemas."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import Connection, func, insert, select

from esb_workers.store.engine import Cursor
from esb_workers.store.registrations import Registrations
from esb_workers.store.tables import message_type, message_type_version


class TypeRow(NamedTuple):
    """A message type as stored."""

    id: str
    name: str
    mode: str
    compatibility: str
    description: str | None
    latest: int
    active_version: int | None
    metadata: dict[str, Any]
    etag: int
    created_at: datetime
    updated_at: datetime

    @property
    def version(self) -> int:
        """The version that counts."""
        return self.active_version or self.latest


class VersionRow(NamedTuple):
    """A version of a type's schema, which is JSON text."""

    type_id: str
    version: int
    schema: str
    description: str | None
    created_by: str
    created_at: datetime


_rows = Registrations(message_type, TypeRow)
#: Deleting a type takes its versions along.
add, get, change, remove = _rows.add, _rows.get, _rows.change, _rows.remove


def add_version(
    connection: Connection, type_id: str, version: int, schema: str, description: str | None, by: str
) -> VersionRow:
    """A further version."""
    values = {
        "type_id": type_id,
        "version": version,
        "schema": schema,
        "description": description,
        "created_by": by,
    }
    statement = insert(message_type_version).values(values).returning(*message_type_version.c)
    return VersionRow(*connection.execute(statement).one())


def page(
    connection: Connection,
    limit: int,
    after: str | None,
    *,
    name: Sequence[str] | None = None,
    mode: Sequence[str] | None = None,
) -> list[tuple[TypeRow, VersionRow]]:
    """Types with the version that counts, newest first, one more than `limit` if there are more."""
    query = select(message_type, message_type_version).join(
        message_type_version,
        (message_type_version.c.type_id == message_type.c.id)
        & (message_type_version.c.version == func.coalesce(message_type.c.active_version, message_type.c.latest)),
    )
    if after is not None:
        query = query.where(message_type.c.id < after)
    if name is not None:
        query = query.where(message_type.c.name.in_(name))
    if mode is not None:
        query = query.where(message_type.c.mode.in_(mode))
    width = len(message_type.c)
    rows = connection.execute(query.order_by(message_type.c.id.desc()).limit(limit + 1))
    return [(TypeRow(*row[:width]), VersionRow(*row[width:])) for row in rows]


def version(connection: Connection, type_id: str, number: int) -> VersionRow | None:
    """One version of a type."""
    query = select(message_type_version).where(
        message_type_version.c.type_id == type_id, message_type_version.c.version == number
    )
    row = connection.execute(query).first()
    return VersionRow(*row) if row else None


def versions(connection: Connection, type_id: str, limit: int, before: int | None) -> list[VersionRow]:
    """A type's versions, newest first, one more than `limit` if there are more."""
    query = select(message_type_version).where(message_type_version.c.type_id == type_id)
    if before is not None:
        query = query.where(message_type_version.c.version < before)
    query = query.order_by(message_type_version.c.version.desc()).limit(limit + 1)
    return [VersionRow(*row) for row in connection.execute(query)]


class CheckedType(NamedTuple):
    """A type whose payloads are looked at."""

    type_id: str
    name: str
    mode: str
    version: int


def checked(cursor: Cursor) -> list[CheckedType]:
    """Every type that is not switched off."""
    cursor.execute("select id, name, mode, coalesce(active_version, latest) from message_type where mode <> 'off'")
    return [CheckedType(*row) for row in cursor.fetchall()]


def schema(cursor: Cursor, type_id: str, number: int) -> str | None:
    """The schema of one version, as JSON text."""
    cursor.execute("select schema from message_type_version where type_id = %s and version = %s", (type_id, number))
    row = cursor.fetchone()
    return str(row[0]) if row else None
