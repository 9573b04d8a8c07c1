"""Inbound webhooks: their definitions, and the requests they refused."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import Connection, delete, func, insert, select

from esb_workers.store.registrations import Registrations
from esb_workers.store.tables import ingress, ingress_refusal

#: Refusals kept of one ingress.
KEPT = 1000


class IngressRow(NamedTuple):
    """An ingress as stored. `secrets` are sealed: `{"sealed", "until"}`, newest first; `until` in unix seconds."""

    id: str
    name: str
    enabled: bool
    body: dict[str, Any]
    secrets: list[dict[str, Any]]
    challenge_token: str | None
    etag: int
    created_at: datetime
    updated_at: datetime


class RefusalRow(NamedTuple):
    """A request that was refused."""

    id: str
    ingress_id: str
    at: datetime
    status: int
    code: str
    reason: str
    method: str
    remote: str | None
    content_type: str | None
    bytes: int | None
    headers: dict[str, str]


_rows = Registrations(ingress, IngressRow)
#: Deleting an ingress takes its refusals along; the messages it accepted stay.
add, get, page, change, remove = _rows.add, _rows.get, _rows.page, _rows.change, _rows.remove


def named(connection: Connection, name: str) -> IngressRow | None:
    """The ingress of a name, without regard to case."""
    row = connection.execute(select(ingress).where(func.lower(ingress.c.name) == name.lower())).first()
    return IngressRow(*row) if row else None


def refuse(connection: Connection, rows: Sequence[RefusalRow]) -> None:
    """Keep refusals, and of each ingress only the newest. Those of one that is deleted by now are dropped."""
    ids = sorted({row.ingress_id for row in rows})
    # Locked against its deletion, which would break the reference.
    living = select(ingress.c.id).where(ingress.c.id.in_(ids)).order_by(ingress.c.id).with_for_update(read=True)
    known = {row[0] for row in connection.execute(living)}
    values = [row._asdict() for row in rows if row.ingress_id in known]
    if not values:
        return
    connection.execute(insert(ingress_refusal), values)
    for ingress_id in sorted(known):
        mine = ingress_refusal.c.ingress_id == ingress_id
        oldest = select(ingress_refusal.c.id).where(mine).order_by(ingress_refusal.c.id.desc()).offset(KEPT).limit(1)
        connection.execute(delete(ingress_refusal).where(mine, ingress_refusal.c.id <= oldest.scalar_subquery()))


def refusals(
    connection: Connection,
    ingress_id: str,
    limit: int,
    after: str | None,
    *,
    code: Sequence[str] | None = None,
    since: datetime | None = None,
    until: datetime | None = None,
) -> list[RefusalRow]:
    """Refused requests, newest first, one more than `limit` if there are more."""
    query = select(ingress_refusal).where(ingress_refusal.c.ingress_id == ingress_id)
    if after is not None:
        query = query.where(ingress_refusal.c.id < after)
    if code is not None:
        query = query.where(ingress_refusal.c.code.in_(code))
    if since is not None:
        query = query.where(ingress_refusal.c.at >= since)
    if until is not None:
        query = query.where(ingress_refusal.c.at < until)
    return [
        RefusalRow(*row) for row in connection.execute(query.order_by(ingress_refusal.c.id.desc()).limit(limit + 1))
    ]
