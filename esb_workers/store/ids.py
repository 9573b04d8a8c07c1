"""Ids: UUIDv7, whose leading bits are the time, as text."""

from __future__ import annotations

import uuid

from uuid_utils import uuid7


def new_id() -> str:
    """A new UUIDv7. Made here and not in the database: `uuidv7()` is only in PostgreSQL 18."""
    return str(uuid7())


def as_id(text: str) -> str | None:
    """The canonical form of an id a caller sent, or None if it is not a UUID."""
    try:
        canonical = str(uuid.UUID(text))
    except ValueError:
        return None
    return canonical if canonical == text.lower() else None
