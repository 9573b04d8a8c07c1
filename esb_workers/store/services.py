"""Services, their state, their keys, and the work that hangs on them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import Connection, Select, cast, delete, func, insert, select, text, update

from esb_workers.queues import POOL_IDS
from esb_workers.store.clients import KeyRow
from esb_workers.store.ids import new_id
from esb_workers.store.tables import Words, health_check, service, service_key, service_state


class ServiceRow(NamedTuple):
    """An instance as registered, and what the bus knows of it."""

    id: str
    name: str
    version: str
    endpoint: str
    health_check: dict[str, Any] | None
    weight: int
    tags: list[str]
    metadata: dict[str, Any]
    delivery: dict[str, Any]
    status: str
    secret: str | None
    old_secret: str | None
    old_secret_until: datetime | None
    password: str | None
    etag: int
    created_at: datetime
    updated_at: datetime
    health: str
    health_changed_at: datetime | None
    last_check: dict[str, Any] | None
    circuit: str


class CheckRow(NamedTuple):
    """A check as recorded."""

    id: str
    service_id: str
    at: datetime
    ok: bool
    latency_ms: int | None
    status_code: int | None
    error: str | None
    health: str
    changed: bool


_STATE = (
    service_state.c.health,
    service_state.c.health_changed_at,
    service_state.c.last_check,
    service_state.c.circuit,
)


def _joined() -> Select[Any]:
    return select(*service.c, *_STATE).join(service_state, service_state.c.service_id == service.c.id)


def add(connection: Connection, values: dict[str, Any]) -> ServiceRow:
    """A new instance. One that exists already violates `service_instance`."""
    service_id = new_id()
    connection.execute(insert(service).values(id=service_id, **values))
    connection.execute(insert(service_state).values(service_id=service_id))
    row = get(connection, service_id)
    assert row is not None
    return row


def get(connection: Connection, service_id: str, *, lock: bool = False) -> ServiceRow | None:
    """One instance; `lock` keeps others from changing it until the transaction ends."""
    query = _joined().where(service.c.id == service_id)
    row = connection.execute(query.with_for_update(of=service) if lock else query).first()
    return ServiceRow(*row) if row else None


def named(connection: Connection, name: str) -> list[ServiceRow]:
    """All instances of a name, newest first."""
    query = _joined().where(service.c.name == name).order_by(service.c.id.desc())
    return [ServiceRow(*row) for row in connection.execute(query)]


def page(
    connection: Connection, limit: int, after: str | None, filters: Mapping[str, Sequence[str] | None]
) -> list[ServiceRow]:
    """Instances, newest first, one more than `limit` if there are more. `filters`: `name status health tag`."""
    query = _joined().order_by(service.c.id.desc()).limit(limit + 1)
    if after is not None:
        query = query.where(service.c.id < after)
    columns = {"name": service.c.name, "status": service.c.status, "health": service_state.c.health}
    for name, column in columns.items():
        if (wanted := filters.get(name)) is not None:
            query = query.where(column.in_(wanted))
    if (tags := filters.get("tag")) is not None:
        query = query.where(service.c.tags.bool_op("&&")(cast(list(tags), Words)))
    return [ServiceRow(*row) for row in connection.execute(query)]


def change(connection: Connection, service_id: str, values: dict[str, Any]) -> ServiceRow:
    """Write `values` as the instance's next version."""
    statement = update(service).where(service.c.id == service_id)
    connection.execute(statement.values(**values, etag=service.c.etag + 1, updated_at=func.now()))
    row = get(connection, service_id)
    assert row is not None
    return row


def forget_health(connection: Connection, service_id: str) -> None:
    """Nobody looks any more: the health is unknown."""
    statement = update(service_state).where(
        service_state.c.service_id == service_id, service_state.c.health != "unknown"
    )
    connection.execute(statement.values(health="unknown", health_changed_at=func.now(), successes=0, failures=0))


def remove(connection: Connection, service_id: str) -> None:
    """Delete an instance, its state and its keys."""
    connection.execute(delete(service).where(service.c.id == service_id))


# --- the work that hangs on a service --------------------------------------------------------------------


def gate(connection: Connection, name: str) -> None:
    """Open or close the lane of a name by its instances. In the transaction of every change of them."""
    connection.execute(text("select esb_gate(:name)"), {"name": name})


def end_deliveries(connection: Connection, name: str, error_class: str) -> int:
    """End the open deliveries to a name as dead; how many. Chunk by chunk, ids ascending, as all who lock jobs."""
    lane = connection.execute(text("select id from lane where pool = 2 and name = :name"), {"name": name}).scalar()
    ended = 0
    while lane is not None:
        chunk = connection.execute(
            text("select esb_end_lane(:lane, :class, 5000)"), {"lane": lane, "class": error_class}
        )
        count = int(chunk.scalar_one())
        ended += count
        if count == 0:
            break
    return ended


def schedule_checks(connection: Connection, service_id: str, name: str, wanted: bool) -> None:
    """Have the instance checked from now on, or no more. Its job's id is the instance's.

    A check under way finishes; the worker that ends it looks at the instance anew.
    """
    pool = POOL_IDS["health"]
    if not wanted:
        connection.execute(
            text("delete from job where id = cast(:id as uuid) and pool = :pool and state <> 'f'"),
            {"id": service_id, "pool": pool},
        )
        return
    connection.execute(
        text("""
            insert into job (id, pool, lane_id, state, run_at)
            values (cast(:id as uuid), :pool, esb_lane(cast(:pool as smallint), :name), 'r', now())
            on conflict (id) do update set run_at = now(), state = 'r', lane_id = excluded.lane_id
             where job.state in ('s', 'r')"""),
        {"id": service_id, "pool": pool, "name": name},
    )


# --- history of checks -----------------------------------------------------------------------------------


def checks(connection: Connection, service_id: str, limit: int, after: str | None) -> list[CheckRow]:
    """Checks, oldest first, one more than `limit` if there are more."""
    query = select(health_check).where(health_check.c.service_id == service_id).order_by(health_check.c.id)
    if after is not None:
        query = query.where(health_check.c.id > after)
    return [CheckRow(*row) for row in connection.execute(query.limit(limit + 1))]


# --- keys ------------------------------------------------------------------------------------------------


def add_key(connection: Connection, service_id: str, key_id: str, digest: bytes, scope: str) -> KeyRow:
    """A further key of a service."""
    values = {"id": key_id, "service_id": service_id, "hash": digest, "scope": scope}
    return KeyRow(*connection.execute(insert(service_key).values(values).returning(*service_key.c)).one())


def keys(connection: Connection, service_id: str) -> Sequence[KeyRow]:
    """A service's keys, newest first."""
    query = select(service_key).where(service_key.c.service_id == service_id)
    return [KeyRow(*row) for row in connection.execute(query.order_by(service_key.c.created_at.desc()))]


def remove_key(connection: Connection, service_id: str, key_id: str) -> bool:
    """Revoke one key; False if the service has none such."""
    statement = delete(service_key).where(service_key.c.service_id == service_id, service_key.c.id == key_id)
    return connection.execute(statement).rowcount > 0
