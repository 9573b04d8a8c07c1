"""Messages as they are read back: with their status, their deliveries and attempts; and what people do to them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from esb_workers.store.engine import Cursor
from esb_workers.store.ids import as_id, new_id
from esb_workers.store.jobs import Key
from esb_workers.store.json import dumps

#: A message in one of these has nothing left to do.
FINAL = frozenset({"delivered", "partially_delivered", "failed", "unroutable", "expired", "cancelled"})

#: A message in one of these is unfinished.
OPEN = frozenset({"accepted", "scheduled", "routed"})

#: So many candidates are looked at together where a status is sought that few messages have.
CHUNK = 500

#: A page of the log ends with the message that brings its payloads over this.
PAGE_BYTES = 8 << 20

#: Ids carry the clock of the host that made them, `created_at` the database's: bounds on ids allow for that.
_SKEW = timedelta(hours=1)
_EPOCH = datetime.fromisoformat("1971-01-01T00:00:00+00:00")


class MessageRow(NamedTuple):
    """A message with all that became of it. `headers` and `payload` are JSON text."""

    id: str
    client_id: str | None
    external_id: str | None
    source: str
    type: str
    correlation_id: str
    ordering_key: str | None
    priority: int
    deliver_at: datetime | None
    expires_at: datetime | None
    reply_to: str | None
    headers: str
    payload: str | None
    replay_of: str | None
    created_at: datetime
    redacted_at: datetime | None
    status: str
    end_reason: str | None
    end_at: datetime | None
    #: As esb_message_deliveries makes them.
    deliveries: list[dict[str, Any]]


class ActRow(NamedTuple):
    """What a person did to a message, or, without an actor, what the catalogue said of it."""

    at: datetime
    actor: str | None
    action: str
    detail: dict[str, Any] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class LogFilter:
    """Which messages; None means any. Lists mean one of. `clients`: None in it stands for the operator."""

    owner: str | None = None  # only this client's
    ids: Sequence[str] | None = None
    correlation_ids: Sequence[str] | None = None
    types: Sequence[str] | None = None
    sources: Sequence[str] | None = None
    statuses: Sequence[str] | None = None
    destinations: Sequence[str] | None = None
    clients: Sequence[str] | None = None
    since: datetime | None = None
    until: datetime | None = None
    chosen: Sequence[str] | None = None  # these alone: by the bus's ids


_COLUMNS = """m.id, m.client_id, m.external_id, m.source, m.type, m.correlation_id, m.ordering_key, m.priority, m.deliver_at,
    m.expires_at, m.reply_to, m.headers, m.payload, m.replay_of, m.created_at, m.redacted_at,
    esb_message_status(m.id, m.deliver_at, m.created_at), e.reason, e.at, esb_message_deliveries(m.id, m.created_at)"""
_FROM = "from message m left join message_end e on e.message_id = m.id"


def find(cursor: Cursor, text: str, owner: str | None) -> str | None:
    """The id of the message that `text` names: by the bus's id, else by its caller's own `messageId`.

    A client (`owner`) finds only its own; the operator its own first, then the newest.
    """
    mine = " and m.client_id = %(owner)s" if owner is not None else ""
    if (id_ := as_id(text)) is not None:
        cursor.execute(f"select m.id from message m where m.id = %(id)s{mine}", {"id": id_, "owner": owner})
        if row := cursor.fetchone():
            return str(row[0])
    cursor.execute(
        f"select m.id from message m where m.external_id = %(text)s{mine}"
        " order by m.client_id is not null, m.id desc limit 1",
        {"text": text, "owner": owner},
    )
    found = cursor.fetchone()
    return str(found[0]) if found else None


def get(cursor: Cursor, message_id: str) -> MessageRow | None:
    """One message, in one snapshot."""
    cursor.execute(f"select {_COLUMNS} {_FROM} where m.id = %s", (message_id,))
    row = cursor.fetchone()
    return MessageRow(*row) if row else None


def status(cursor: Cursor, message_id: str) -> str | None:
    """The status alone: cheap enough to be asked again and again."""
    cursor.execute(
        "select esb_message_status(m.id, m.deliver_at, m.created_at) from message m where m.id = %s", (message_id,)
    )
    row = cursor.fetchone()
    return str(row[0]) if row else None


def page(cursor: Cursor, limit: int, after: str | None, wanted: LogFilter) -> tuple[list[MessageRow], bool]:
    """Messages, newest first, and whether there are more. Fewer than `limit` where their payloads are large."""
    if wanted.statuses is None or "delivered" in wanted.statuses or wanted.ids or wanted.correlation_ids:
        return _page(cursor, limit, after, wanted)
    # Most messages are delivered. To look for the others among all would take as long as the log is; so they are sought
    # where their like is kept, some at a time.
    found: list[str] = []
    while len(found) <= limit:
        candidates = _not_delivered(cursor, wanted, after)
        found += _matching(cursor, candidates, limit + 1 - len(found), wanted)
        if len(candidates) < CHUNK:
            break
        after = candidates[-1]
    return _page(cursor, limit, None, LogFilter(chosen=found)) if found else ([], False)


def _not_delivered(cursor: Cursor, wanted: LogFilter, after: str | None) -> list[str]:
    """The next CHUNK messages, newest first, that are unfinished, have ended without a delivery, or have one in vain."""
    statuses, clauses = set(wanted.statuses or ()), ["message_id is not null"]
    _, values = _where(wanted)
    if after is not None:
        clauses.append("message_id < %(after)s")
    if "since_id" in values:
        clauses.append("message_id >= esb_uuid_at(%(since_id)s)")
    if "until_id" in values:
        clauses.append("message_id < esb_uuid_at(%(until_id)s)")
    where = " and ".join(clauses)
    sources = [f"from job where {where}"] if OPEN & statuses else []
    if not statuses - OPEN:  # what was collected is as open as the message that it has become part of
        sources.append(f"from delivery where status <> 'delivered' and status = 'collected' and {where}")
    else:
        sources += [f"from message_end where {where}", f"from delivery where status <> 'delivered' and {where}"]
    # Each source in the order of its index, and no further than needed: together they have the newest of all.
    newest = f"order by message_id desc limit {CHUNK:d}"
    union = " union all ".join(f"(select distinct message_id {source} {newest})" for source in sources)
    cursor.execute(f"select distinct message_id from ({union}) x {newest}", values | {"after": after})
    return [row[0] for row in cursor.fetchall()]


def _matching(cursor: Cursor, candidates: Sequence[str], limit: int, wanted: LogFilter) -> list[str]:
    clauses, values = _where(wanted)
    where = " and ".join(["m.id = any(%(candidates)s::uuid[])", *clauses])
    cursor.execute(
        f"select m.id from message m where {where} order by m.id desc limit {limit:d}",
        values | {"candidates": list(candidates)},
    )
    return [row[0] for row in cursor.fetchall()]


def _page(cursor: Cursor, limit: int, after: str | None, wanted: LogFilter) -> tuple[list[MessageRow], bool]:
    clauses, values = _where(wanted)
    if after is not None:
        clauses.append("m.id < %(after)s")
        values["after"] = after
    where = "where " + " and ".join(clauses) if clauses else ""
    # The page is chosen first: status and deliveries are then derived for its rows alone.
    cursor.execute(
        f"""select {_COLUMNS}, m.found from (
              select m.*, count(*) over () as found, row_number() over w as place,
                     sum(coalesce(octet_length(m.payload), 0)) over w - coalesce(octet_length(m.payload), 0) as before
                from (select * from message m {where} order by m.id desc limit {limit + 1:d}) m
              window w as (order by m.id desc)) m
            left join message_end e on e.message_id = m.id
            where m.place <= {limit:d} and m.before < {PAGE_BYTES:d} order by m.id desc""",
        values,
    )
    rows = cursor.fetchall()
    return [MessageRow(*row[:-1]) for row in rows], bool(rows) and rows[0][-1] > len(rows)


_DESTINATION = """(exists (select 1 from job j join lane l on l.id = j.lane_id where j.message_id = m.id and j.pool = 2
      and (l.name = any(%(destinations)s) or j.cursor->>'dest' = any(%(destinations)s)))
    or exists (select 1 from delivery d join lane l on l.id = d.lane_id
      where d.message_id = m.id and d.id >= esb_uuid_at(m.created_at - interval '1 day')
      and (l.name = any(%(destinations)s) or d.cursor->>'dest' = any(%(destinations)s))))"""


def _where(wanted: LogFilter) -> tuple[list[str], dict[str, Any]]:
    values = {
        "owner": wanted.owner,
        "ids": wanted.ids,
        "correlation_ids": wanted.correlation_ids,
        "types": wanted.types,
        "sources": wanted.sources,
        "destinations": wanted.destinations,
        "clients": None if wanted.clients is None else [id_ for text in wanted.clients if (id_ := as_id(text))],
        "statuses": wanted.statuses,
        "chosen": wanted.chosen,
        "since": wanted.since,
        "until": wanted.until,
        "since_id": max(wanted.since - _SKEW, _EPOCH) if wanted.since and wanted.since > _EPOCH else None,
        "until_id": max(wanted.until, _EPOCH) + _SKEW if wanted.until and wanted.until.year < 9999 else None,
    }
    clauses = {
        "owner": "m.client_id = %(owner)s",
        "ids": "(m.id::text = any(%(ids)s) or m.external_id = any(%(ids)s))",
        "correlation_ids": "m.correlation_id = any(%(correlation_ids)s)",
        "types": "m.type = any(%(types)s)",
        "sources": "m.source = any(%(sources)s)",
        "destinations": _DESTINATION,
        "clients": "m.client_id = any(%(clients)s::uuid[])",
        "statuses": "esb_message_status(m.id, m.deliver_at, m.created_at) = any(%(statuses)s)",
        "chosen": "m.id = any(%(chosen)s::uuid[])",
        "since": "m.created_at >= %(since)s",
        "until": "m.created_at < %(until)s",
        "since_id": "m.id >= esb_uuid_at(%(since_id)s)",  # prunes partitions
        "until_id": "m.id < esb_uuid_at(%(until_id)s)",
    }
    given = {
        name: list(value) if isinstance(value, tuple) else value for name, value in values.items() if value is not None
    }
    return [clauses[name] for name in given], given


def acts(cursor: Cursor, message_id: str) -> list[ActRow]:
    """What the catalogue had to say of a message, and what people did to it, oldest first."""
    cursor.execute(
        """select at, actor, action, detail from (
             select at, null as actor, 'schema_warning' as action,
                    jsonb_build_object('version', version, 'errors', faults) as detail
               from message_warning where message_id = %(id)s::uuid
              union all
             select at, actor, action, detail from audit where resource = 'message' and resource_id = %(id)s
              union all
             select i.sent_at, coalesce(a.actor, 'operator'), 'replay_delivery',
                    jsonb_build_object('deliveryId', i.delivery_id, 'replayId', i.replay_id)
               from replay_item i
               left join audit a on a.resource = 'replay' and a.resource_id = i.replay_id::text and a.action = 'start'
              where i.sent_at is not null and i.delivery_id = any(array(
                select id from delivery where message_id = %(id)s::uuid
                 union all select id from job where message_id = %(id)s::uuid))
           ) a order by at""",
        {"id": message_id},
    )
    return [ActRow(*row) for row in cursor.fetchall()]


def note_act(
    cursor: Cursor,
    subject: str,
    actor: str,
    action: str,
    detail: dict[str, Any] | None = None,
    resource: str = "message",
) -> None:
    """Keep what a person did to a message (or a replay), in the transaction that does it."""
    cursor.execute(
        "insert into audit (id, actor, action, resource, resource_id, detail) values (%s, %s, %s, %s, %s, %s)",
        (new_id(), actor, action, resource, subject, None if detail is None else dumps(detail)),
    )


def cancel(cursor: Cursor, message_id: str) -> tuple[bool, list[Key]]:
    """Stop what is not delivered yet: whether there was anything, and the keys to promote."""
    cursor.execute("select id, lane_id, okey from esb_cancel_message(%s)", (message_id,))
    rows = cursor.fetchall()
    return bool(rows), list(dict.fromkeys(Key(lane, okey) for _, lane, okey in rows if okey is not None))


def redact(cursor: Cursor, message_id: str) -> str | None:
    """Take the content away: `ok`, the status that forbids it, or None if there is no such message."""
    cursor.execute("select esb_redact(%s)", (message_id,))
    row = cursor.fetchone()
    return row[0] if row else None


class Retried(NamedTuple):
    """What came of a retry by hand: `ok`, or the word that forbids it."""

    outcome: str
    message_id: str
    lane_id: int | None
    okey: str | None


def retry(cursor: Cursor, delivery_id: str) -> Retried | None:
    """Take a delivery up again with a fresh budget; None if there is none such."""
    cursor.execute("select outcome, message_id, lane_id, okey from esb_retry_by_hand(%s)", (delivery_id,))
    row = cursor.fetchone()
    return Retried(*row) if row else None


def let_probe(cursor: Cursor, lane_id: int, delivery_id: str) -> None:
    """If every circuit of the lane's service is open, have this delivery be the probe. After the commit of its retry."""
    cursor.execute("select esb_let_probe(%s, %s)", (lane_id, delivery_id))


class Original(NamedTuple):
    """What a replay repeats."""

    client_id: str | None
    source: str
    type: str
    correlation_id: str
    ordering_key: str | None
    priority: int
    reply_to: str | None
    headers: str
    payload: str | None


def original(cursor: Cursor, message_id: str) -> Original | None:
    """The message to be repeated, locked against redaction. A client that was deleted is no longer its sender."""
    cursor.execute(
        "select (select c.id from client c where c.id = m.client_id), m.source, m.type, m.correlation_id, m.ordering_key,"
        " m.priority, m.reply_to, m.headers, m.payload from message m where m.id = %s for share of m",
        (message_id,),
    )
    row = cursor.fetchone()
    return Original(*row) if row else None
