"""Routes as they were written. A deleted one stays, marked, for the deliveries it made."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import Connection, func, insert, select, update

from esb_workers.store.engine import Cursor
from esb_workers.store.ids import new_id
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


def add(connection: Connection, name: str, priority: int, enabled: bool, body: dict[str, Any]) -> RouteRow:
    """A new route. A name that is taken violates `route_name`."""
    values = {"id": new_id(), "name": name, "priority": priority, "enabled": enabled, "body": body, "rev": _NEXT}
    return RouteRow(*connection.execute(insert(route).values(values).returning(*route.c)).one())


def get(connection: Connection, route_id: str, *, lock: bool = False) -> RouteRow | None:
    """A route that is not deleted; `lock` keeps others from changing it until the transaction ends."""
    query = select(route).where(route.c.id == route_id, route.c.deleted_at.is_(None))
    row = connection.execute(query.with_for_update() if lock else query).first()
    return RouteRow(*row) if row else None


def page(
    connection: Connection,
    limit: int,
    after: str | None,
    *,
    name: Sequence[str] | None = None,
    enabled: bool | None = None,
) -> list[RouteRow]:
    """Routes, newest first, one more than `limit` if there are more."""
    query = select(route).where(route.c.deleted_at.is_(None)).order_by(route.c.id.desc()).limit(limit + 1)
    if after is not None:
        query = query.where(route.c.id < after)
    if name is not None:
        query = query.where(func.lower(route.c.name).in_([one.lower() for one in name]))
    if enabled is not None:
        query = query.where(route.c.enabled.is_(enabled))
    return [RouteRow(*row) for row in connection.execute(query)]


def change(connection: Connection, route_id: str, values: dict[str, Any]) -> RouteRow:
    """Write `values` as the route's next version."""
    statement = (
        update(route)
        .where(route.c.id == route_id)
        .values(**values, etag=route.c.etag + 1, updated_at=func.now(), rev=_NEXT)
        .returning(*route.c)
    )
    return RouteRow(*connection.execute(statement).one())


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
