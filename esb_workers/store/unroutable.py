"""Messages that no route took, and that nobody has sent again since."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from esb_workers.store.engine import Cursor
from esb_workers.store.ids import as_id

#: Counted no further than this: a scrape must not cost more as they grow.
COUNTED = 100_000

_WAITING = """e.status = 'unroutable' and not exists (
  select 1 from audit a where a.resource = 'message' and a.resource_id = e.message_id::text and a.action = 'replay')"""


@dataclass(frozen=True, slots=True, kw_only=True)
class UnroutableFilter:
    """Which of them; None means any, lists mean one of."""

    message_ids: Sequence[str] | None = None
    types: Sequence[str] | None = None
    sources: Sequence[str] | None = None
    clients: Sequence[str] | None = None
    since: datetime | None = None
    until: datetime | None = None


def page(cursor: Cursor, limit: int, after: str | None, wanted: UnroutableFilter) -> list[str]:
    """Their ids, oldest first; redacted ones have nothing left to send."""
    clauses = {
        "after": "e.message_id > %(after)s",
        "message_ids": "(m.id::text = any(%(message_ids)s) or m.external_id = any(%(message_ids)s))",
        "types": "m.type = any(%(types)s)",
        "sources": "m.source = any(%(sources)s)",
        "clients": "m.client_id = any(%(clients)s::uuid[])",
        "since": "m.created_at >= %(since)s",
        "until": "m.created_at < %(until)s",
    }
    clients = None if wanted.clients is None else [id_ for text in wanted.clients if (id_ := as_id(text))]
    values: dict[str, Any] = {
        "after": after, "message_ids": wanted.message_ids, "types": wanted.types, "sources": wanted.sources,
        "clients": clients, "since": wanted.since, "until": wanted.until,
    }  # fmt: skip
    given = {
        name: list(value) if isinstance(value, tuple) else value for name, value in values.items() if value is not None
    }
    where = " and ".join([_WAITING, "m.redacted_at is null", *(clauses[name] for name in given)])
    cursor.execute(
        "select e.message_id from message_end e join message m on m.id = e.message_id"
        f" where {where} order by e.message_id limit {limit:d}",
        given,
    )
    return [row[0] for row in cursor.fetchall()]


def take(cursor: Cursor, ids: Sequence[str]) -> list[str]:
    """Those of `ids` that still wait, oldest first, locked until the transaction ends so that each is sent once."""
    cursor.execute(
        "select message_id from message_end where message_id = any(%s::uuid[]) order by message_id for update",
        (list(ids),),
    )
    # Looked at once more with the locks held: whoever had them may have sent some.
    cursor.execute(
        f"select e.message_id from message_end e where e.message_id = any(%s::uuid[]) and {_WAITING} order by e.message_id",
        (list(ids),),
    )
    return [row[0] for row in cursor.fetchall()]


def count(cursor: Cursor) -> int:
    """How many there are, up to COUNTED."""
    cursor.execute(f"select count(*) from (select 1 from message_end e where {_WAITING} limit {COUNTED:d}) x")
    return int(cursor.fetchone()[0])  # type: ignore[index]
