"""Clients and their keys."""

from __future__ import annotations

from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import Connection, delete, func, select, text, update
from sqlalchemy.dialects.postgresql import insert

from esb_workers.store.registrations import Registrations
from esb_workers.store.tables import client, client_key, client_usage, service_key


class ClientRow(NamedTuple):
    """A client as stored."""

    id: str
    name: str
    allowed_services: list[str]
    allowed_message_types: list[str]
    rate_limits: dict[str, int]
    max_payload_bytes: int | None
    expires_at: datetime | None
    status: str
    metadata: dict[str, Any]
    etag: int
    created_at: datetime
    updated_at: datetime


class KeyRow(NamedTuple):
    """A key as stored; `id` is its public part."""

    id: str
    owner_id: str
    hash: bytes
    created_at: datetime
    expires_at: datetime | None
    scope: str = ""  # of a service's key: what it may do


class UsageRow(NamedTuple):
    """What became of a client's requests in the hour from `hour` on."""

    hour: datetime
    accepted: int
    rejected: int
    delivered: int


_rows = Registrations(client, ClientRow)
#: Deleting a client takes its keys along; its messages stay.
add, get, page, change, remove = _rows.add, _rows.get, _rows.page, _rows.change, _rows.remove


# --- keys ------------------------------------------------------------------------------------------------


def add_key(connection: Connection, client_id: str, key_id: str, digest: bytes, expires_at: datetime | None) -> KeyRow:
    """A further key of a client."""
    values = {"id": key_id, "client_id": client_id, "hash": digest, "expires_at": expires_at}
    return KeyRow(*connection.execute(insert(client_key).values(values).returning(*client_key.c)).one())


def keys(connection: Connection, client_id: str) -> list[KeyRow]:
    """A client's keys, newest first, expired ones included."""
    query = select(client_key).where(client_key.c.client_id == client_id)
    return [KeyRow(*row) for row in connection.execute(query.order_by(client_key.c.created_at.desc()))]


def expire_keys(connection: Connection, client_id: str, but: str, milliseconds: int) -> None:
    """Have every key of a client but one end within `milliseconds`; what ends sooner stays as it is."""
    end = func.now() + func.make_interval(0, 0, 0, 0, 0, 0, milliseconds / 1000)
    owned = (client_key.c.client_id == client_id) & (client_key.c.id != but)
    later = client_key.c.expires_at.is_(None) | (client_key.c.expires_at > end)
    connection.execute(update(client_key).where(owned, later).values(expires_at=end))


def remove_key(connection: Connection, client_id: str, key_id: str) -> bool:
    """Revoke one key; False if the client has none such."""
    statement = delete(client_key).where(client_key.c.client_id == client_id, client_key.c.id == key_id)
    return connection.execute(statement).rowcount > 0


def find_key(connection: Connection, key_id: str) -> tuple[KeyRow, ClientRow] | None:
    """A client key by its public id, with its client."""
    query = select(client_key, client).join(client, client.c.id == client_key.c.client_id)
    row = connection.execute(query.where(client_key.c.id == key_id)).first()
    if row is None:
        return None
    width = len(client_key.c)
    return KeyRow(*row[:width]), ClientRow(*row[width:])


def find_service_key(connection: Connection, key_id: str) -> KeyRow | None:
    """A service's key by its public id."""
    row = connection.execute(select(service_key).where(service_key.c.id == key_id)).first()
    return KeyRow(*row) if row else None


# --- usage -----------------------------------------------------------------------------------------------


def add_rejected(connection: Connection, counts: dict[str, int]) -> None:
    """Add to the requests refused in this hour, by client. In the order of the ids: two writers never cross."""
    for client_id in sorted(counts):
        hour = func.date_trunc("hour", func.now())
        statement = insert(client_usage).values(client_id=client_id, hour=hour, rejected=counts[client_id])
        connection.execute(
            statement.on_conflict_do_update(
                index_elements=["client_id", "hour"],
                set_={"rejected": client_usage.c.rejected + statement.excluded.rejected},
            )
        )


_USAGE = text("""
    with hours as (
      select h from generate_series(date_trunc('hour', now()) - interval '23 hours', date_trunc('hour', now()),
                                    interval '1 hour') h),
    first as (select esb_uuid_at(min(h)) as id, esb_uuid_at(min(h) - interval '1 day') as before from hours),
    sent as (
      select date_trunc('hour', m.created_at) as h, count(*) as n from message m
       where m.client_id = cast(:id as uuid) and m.id >= (select id from first) and m.replay_of is null group by 1),
    started as (
      select date_trunc('hour', e.created_at) as h, count(*) as n from execution e
       where e.client_id = cast(:id as uuid) and e.id >= (select id from first) and e.parent_job is null group by 1),
    arrived as (
      select date_trunc('hour', d.finished_at) as h, count(*) as n
        from message m join delivery d on d.message_id = m.id and d.id >= (select before from first)
       where m.client_id = cast(:id as uuid) and m.id >= (select before from first) and d.status = 'delivered'
       group by 1)
    select hours.h, coalesce(sent.n, 0) + coalesce(started.n, 0), coalesce(u.rejected, 0), coalesce(arrived.n, 0)
      from hours left join sent using (h) left join started using (h) left join arrived using (h)
      left join client_usage u on u.client_id = cast(:id as uuid) and u.hour = hours.h
     order by hours.h""")


def usage(connection: Connection, client_id: str) -> list[UsageRow]:
    """The last 24 hours, oldest first."""
    return [
        UsageRow(row[0], int(row[1]), int(row[2]), int(row[3])) for row in connection.execute(_USAGE, {"id": client_id})
    ]
