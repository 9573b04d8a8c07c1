"""Who changed which registration, and how. Written in the transaction of the change."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import Connection, insert, select, text

from esb_workers.store.ids import new_id
from esb_workers.store.tables import audit


class Change(NamedTuple):
    """Who does what to which resource."""

    actor: str
    action: str
    resource: str
    resource_id: str
    name: str | None = None
    detail: dict[str, Any] | None = None


class AuditRow(NamedTuple):
    """A recorded change."""

    id: str
    at: datetime
    actor: str
    action: str
    resource: str
    resource_id: str
    name: str | None
    detail: dict[str, Any] | None


def record(connection: Connection, change: Change) -> None:
    """Record `change`."""
    connection.execute(insert(audit).values(id=new_id(), **change._asdict()))


def changed(connection: Connection, topic: str, change: Change) -> None:
    """Record `change`, and make stale what any process has cached of `topic` (`clients`, `services` …)."""
    record(connection, change)
    connection.execute(text("select esb_changed(:topic)"), {"topic": topic})


def page(
    connection: Connection,
    limit: int,
    after: str | None,
    *,
    resource: Sequence[str] | None = None,
    resource_id: Sequence[str] | None = None,
    actor: Sequence[str] | None = None,
    since: datetime | None = None,
    until: datetime | None = None,
) -> list[AuditRow]:
    """Changes, newest first, one more than `limit` if there are more."""
    query = select(audit).order_by(audit.c.id.desc()).limit(limit + 1)
    if after is not None:
        query = query.where(audit.c.id < after)
    for column, wanted in ((audit.c.resource, resource), (audit.c.resource_id, resource_id), (audit.c.actor, actor)):
        if wanted is not None:
            query = query.where(column.in_(wanted))
    if since is not None:
        query = query.where(audit.c.at >= since)
    if until is not None:
        query = query.where(audit.c.at < until)
    return [AuditRow(*row) for row in connection.execute(query)]
