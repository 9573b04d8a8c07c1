"""Listeners: their registrations, what they count, and the messages they parked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple

import orjson
from sqlalchemy import Connection, select, text

from esb_workers.store.engine import Cursor
from esb_workers.store.ids import new_id
from esb_workers.store.jobs import Held
from esb_workers.store.registrations import Registrations
from esb_workers.store.tables import listener, parked_message

POOL = 5


class ListenerRow(NamedTuple):
    """A listener as stored; `url` is without its password."""

    id: str
    name: str
    url: str
    password: str | None
    enabled: bool
    processes: int
    prefetch: int
    mapping: dict[str, Any]
    etag: int
    created_at: datetime
    updated_at: datetime


class StateRow(NamedTuple):
    """What became of a listener's queue so far."""

    accepted: int
    duplicates: int
    parked: int
    last_message_at: datetime | None
    connected_at: datetime | None
    error: str | None
    error_at: datetime | None
    waiting: int  # parked messages that are still there
    running: int  # processes that consume


class Parked(NamedTuple):
    """A message to be parked."""

    listener_id: str
    reason: str
    body: bytes
    headers: Mapping[str, Any]
    properties: Mapping[str, Any]


class ParkedRow(NamedTuple):
    """A parked message as stored; headers and properties are JSON text."""

    id: str
    listener_id: str
    at: datetime
    reason: str
    body: bytes
    headers: str
    properties: str


# --- registrations ---------------------------------------------------------------------------------------


_rows = Registrations(listener, ListenerRow)
#: Whoever holds the lock of `get` keeps consumers from accepting as well. Deleting a listener takes along what it
#: parked; the messages it accepted stay.
get, page, change, remove = _rows.get, _rows.page, _rows.change, _rows.remove


def add(connection: Connection, values: dict[str, Any]) -> ListenerRow:
    """A new listener. A name that is taken violates `listener_name`."""
    row = _rows.add(connection, values)
    connection.execute(text("insert into listener_state (listener_id) values (:id)"), {"id": row.id})
    return row


def listen(connection: Connection, listener_id: str, processes: int, enabled: bool) -> None:
    """Have its jobs be what its row says."""
    connection.execute(
        text("select esb_listen(cast(:id as uuid), :n, :on)"), {"id": listener_id, "n": processes, "on": enabled}
    )


def states(connection: Connection, ids: Sequence[str]) -> dict[str, StateRow]:
    """What is known of listeners, by id."""
    rows = connection.execute(
        text("""
        select s.listener_id, s.accepted, s.duplicates, s.parked, s.last_message_at, s.connected_at, s.error, s.error_at,
               (select count(*) from parked_message p where p.listener_id = s.listener_id),
               (select count(*) from job j join lane l on l.id = j.lane_id
                 where j.pool = 5 and j.state = 'f' and l.pool = 5 and l.name = s.listener_id::text)
          from listener_state s where s.listener_id = any(cast(:ids as uuid[]))"""),
        {"ids": list(ids)},
    )
    return {str(row[0]): StateRow(*row[1:]) for row in rows}


# --- consuming -------------------------------------------------------------------------------------------


def load(cursor: Cursor, ids: Sequence[str]) -> dict[str, ListenerRow]:
    """Listeners by id."""
    columns = ", ".join(ListenerRow._fields)
    cursor.execute(f"select {columns} from listener where id = any(%s::uuid[])", (list(ids),))
    return {row[0]: ListenerRow(*row) for row in cursor.fetchall()}


def hold(cursor: Cursor, listener_id: str, etag: int) -> bool:
    """Whether the listener is still this version, and enabled; it cannot change before the transaction's end."""
    cursor.execute("select 1 from listener where id = %s and etag = %s and enabled for share", (listener_id, etag))
    return cursor.fetchone() is not None


def park(cursor: Cursor, messages: Sequence[Parked]) -> None:
    """Keep messages for a person to look at."""
    for one in messages:
        cursor.execute(
            "insert into parked_message (id, listener_id, reason, body, headers, properties) values (%s, %s, %s, %s, %s, %s)",
            (new_id(), one.listener_id, one.reason, one.body, _json(one.headers), _json(one.properties)),
        )


def count(cursor: Cursor, listener_id: str, accepted: int, duplicates: int, parked: int) -> None:
    """Add to what has become of a queue's messages."""
    cursor.execute(
        "update listener_state set accepted = accepted + %s, duplicates = duplicates + %s, parked = parked + %s,"
        " last_message_at = now() where listener_id = %s",
        (accepted, duplicates, parked, listener_id),
    )


def note(cursor: Cursor, listener_id: str, error: str | None) -> None:
    """Remember that the queue is being consumed, or why it is not."""
    if error is None:
        cursor.execute("update listener_state set connected_at = now() where listener_id = %s", (listener_id,))
    else:
        cursor.execute(
            "update listener_state set error = %s, error_at = now() where listener_id = %s",
            (error[:2000].replace("\0", ""), listener_id),
        )


def renew(cursor: Cursor, worker: int, held: Sequence[Held], seconds: float) -> set[Held]:
    """Lengthen the leases of consumers; those that are still ours. One that lasts is no poison.

    A job alone does not tell: swept, it may have been claimed anew by this very process.
    """
    cursor.execute(
        "update job j set lease_until = now() + make_interval(secs => %s), losses = 0"
        " from unnest(%s::uuid[], %s::int[]) x(id, attempt)"
        " where j.id = x.id and j.attempt = x.attempt and j.worker_id = %s and j.state = 'f' returning j.id, j.attempt",
        (seconds, [one.id for one in held], [one.attempt for one in held], worker),
    )
    return {Held(str(row[0]), row[1]) for row in cursor.fetchall()}


def release(cursor: Cursor, worker: int, held: Held, listener_id: str, n: int, seconds: float) -> None:
    """A consumer has ended: its job is for the next one, after a while."""
    cursor.execute(
        "select esb_listener_release(%s, %s, %s, %s, %s, make_interval(secs => %s))",
        (worker, held.id, held.attempt, listener_id, n, seconds),
    )


def adopt(cursor: Cursor) -> int:
    """Make the jobs that enabled listeners lack, if any; how many such listeners there were."""
    cursor.execute("""
        select count(esb_listen(l.id, l.processes, true)::text) from listener l
         where l.enabled and exists (select 1 from generate_series(0, l.processes - 1) n
                                      where not exists (select 1 from job j where j.id = esb_listener_job(l.id, n)))""")
    return int(cursor.fetchone()[0])  # type: ignore[index]


# --- parked messages -------------------------------------------------------------------------------------


def parked(connection: Connection, listener_id: str, limit: int, after: str | None) -> list[ParkedRow]:
    """Parked messages, newest first, one more than `limit` if there are more."""
    query = select(parked_message).where(parked_message.c.listener_id == listener_id)
    if after is not None:
        query = query.where(parked_message.c.id < after)
    rows = connection.execute(query.order_by(parked_message.c.id.desc()).limit(limit + 1))
    return [ParkedRow(*row) for row in rows]


def take_parked(cursor: Cursor, listener_id: str, parked_id: str) -> ParkedRow | None:
    """One parked message, which is no longer there if the caller's transaction commits."""
    columns = ", ".join(ParkedRow._fields)
    cursor.execute(
        f"delete from parked_message where id = %s and listener_id = %s returning {columns}", (parked_id, listener_id)
    )
    row = cursor.fetchone()
    return ParkedRow(*row)._replace(body=bytes(row[4])) if row else None


def _json(value: Mapping[str, Any]) -> str:
    return orjson.dumps(value, default=str, option=orjson.OPT_NON_STR_KEYS).decode().replace("\\u0000", "\\ufffd")
