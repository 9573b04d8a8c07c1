"""Instances of services as whoever calls them needs them: registration, health and circuit in one look."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, NamedTuple

from esb_workers.store import events
from esb_workers.store.engine import Cursor
from esb_workers.store.ids import new_id


class InstanceRow(NamedTuple):
    """An instance as stored. `circuit_until` is in seconds since the epoch, by the database's clock."""

    id: str
    name: str
    version: str
    endpoint: str
    weight: int
    status: str
    delivery: dict[str, Any]
    secret: str | None
    old_secret: str | None
    old_secret_until: datetime | None
    health: str
    circuit: str
    circuit_until: float
    circuit_opens: int
    circuit_epoch: int
    password: str | None = None


def load(cursor: Cursor) -> list[InstanceRow]:
    """Every registered instance, oldest first."""
    cursor.execute(
        "select s.id, s.name, s.version, s.endpoint, s.weight, s.status, s.delivery, s.secret, s.old_secret,"
        " s.old_secret_until, st.health, st.circuit, extract(epoch from st.circuit_until)::float8, st.circuit_opens,"
        " st.circuit_epoch, s.password"
        " from service s join service_state st on st.service_id = s.id order by s.name, s.id"
    )
    return [InstanceRow(*row) for row in cursor.fetchall()]


def database_clock(cursor: Cursor) -> float:
    """The database's time in seconds since the epoch."""
    cursor.execute("select extract(epoch from clock_timestamp())::float8")
    return float(cursor.fetchone()[0])  # type: ignore[index]


def lock(cursor: Cursor, ids: Sequence[str]) -> None:
    """Keep others from changing these instances until the transaction ends."""
    if ids:
        cursor.execute("select 1 from service where id = any(%s::uuid[]) order by id for update", (list(ids),))


def disable(cursor: Cursor, service_id: str) -> bool:
    """Take an instance out of use, as its own 410 asks; inside the transaction that records the answer."""
    cursor.execute(
        "update service set status = 'inactive', etag = etag + 1, updated_at = now()"
        " where id = %s and status <> 'inactive' returning name, version, endpoint",
        (service_id,),
    )
    row = cursor.fetchone()
    if row is None:
        return False
    name, version, endpoint = row
    cursor.execute("select esb_gate(%s), esb_changed('services')", (name,))
    cursor.execute(
        "insert into audit (id, actor, action, resource, resource_id, name, detail)"
        " values (%s, 'bus', 'disable', 'service', %s, %s, '{\"reason\": \"HttpStatus.410\"}')",
        (new_id(), service_id, name),
    )
    told = {"serviceId": service_id, "name": name, "version": version, "endpoint": endpoint, "reason": "HttpStatus.410"}
    events.tell(cursor, "esb.service.disabled", told)
    return True
