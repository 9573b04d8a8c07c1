"""Places at services with declared limits, for calls outside of the services' own lanes."""

from __future__ import annotations

from typing import NamedTuple

from esb_workers.store.engine import Database


class Permit(NamedTuple):
    """A place (`id`; 0 need not be given back), or none, and when to ask again, milliseconds."""

    id: int | None
    retry_ms: int | None


def take(database: Database, service: str, seconds: float) -> Permit:
    """A place at a service; see esb_permit. Raises Unavailable."""
    with database.cursor() as cursor:
        cursor.execute("select id, retry_ms from esb_permit(%s, %s)", (service, seconds))
        return Permit(*cursor.fetchone())  # type: ignore[misc]


def give_back(database: Database, permit: int) -> None:
    """Give a place back. Raises Unavailable; then it is free when its time has run out."""
    with database.cursor() as cursor:
        cursor.execute("delete from permit where id = %s", (permit,))
