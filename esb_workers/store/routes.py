"""Routes as they were written. A deleted one stays, marked, for the deliveries it made."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import Connection, func, select, update

from esb_workers.store.engine import Cursor
from esb_workers.store.registrations import Registrations
from esb_workers.store.tables import revision, route


class RouteRow(NamedTuple):
    """A route as stored; `body` holds all that is not a column of its own."""

    id: str
    name: str
    priority: int
    enabled: bool
    body: dict[str, Any]
    etag: int
    created_at: datetime
    updated_at: datetime
    deleted_at: datetime | None
    rev: int


_COLUMNS = "id, name, priority, enabled, body, etag, created_at, updated_at, deleted_at, rev"
#: The revision that the change under way comes with. The lock lets changes only come one after another, so that
#: whoever sees a revision sees every route of it; esb_changed, later in the transaction, makes it so.
_NEXT = select(revision.c.n + 1).where(revision.c.topic == "routes").with_for_update().scalar_subquery()


_rows = Registrations(route, RouteRow, route.c.deleted_at.is_(None))
get, page = _rows.get, _rows.page


def add(connection: Connection, name: str, priority: int, enabled: bool, body: dict[str, Any]) -> RouteRow:
    """A new route. A name that is taken violates `route_name`."""
    values = {"name": name, "priority": priority, "enabled": enabled, "body": body, "rev": _NEXT}
    return _rows.add(connection, values)


def change(connection: Connection, route_id: str, values: Mapping[str, Any]) -> RouteRow:
    """Write `values` as the route's next version."""
    return _rows.change(connection, route_id, {**values, "rev": _NEXT})


def mark_deleted(connection: Connection, route_id: str) -> None:
    """Take a route out of use; its name is free again."""
    connection.execute(update(route).where(route.c.id == route_id).values(deleted_at=func.now(), rev=_NEXT))


def in_force(cursor: Cursor) -> list[RouteRow]:
    """Every route that is not deleted, by priority (higher first), then as they were made."""
    cursor.execute(f"select {_COLUMNS} from route where deleted_at is null order by priority desc, id")
    return [RouteRow(*row) for row in cursor.fetchall()]


def changed_since(cursor: Cursor, rev: int) -> list[RouteRow]:
    """Every route that was made, changed or deleted after revision `rev` of the routes."""
    cursor.execute(f"select {_COLUMNS} from route where rev > %s order by rev", (rev,))
    return [RouteRow(*row) for row in cursor.fetchall()]


def by_id(cursor: Cursor, ids: Sequence[str]) -> dict[str, RouteRow]:
    """Routes by id, deleted ones included: their open deliveries keep their policies."""
    cursor.execute(f"select {_COLUMNS} from route where id = any(%s::uuid[])", (list(ids),))
    return {row[0]: RouteRow(*row) for row in cursor.fetchall()}
