"""Messages: accepting them, and loading them for routing and delivery."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

from esb_workers.store.engine import Cursor, StaleRevision
from esb_workers.store.json import dumps
from esb_workers.store.prepared import Prepared

STALE: Final = "stale"
MOVED: Final = "moved"
#: Of a message that names none.
DEFAULT_PRIORITY: Final = 5
_ACCEPT: Final = Prepared(
    "esb_accept",
    "select i, outcome, id, direct from esb_accept(%s::json, %s::json, %s::jsonb, %s::int, %s::int, %s::uuid, %s::text,"
    " %s::text, %s::text, %s::text, %s::smallint)",
)
#: What the messages of a batch mostly have in common, in the order of esb_accept's parameters.
ALIKE: Final = ("known", "lane", "client", "source", "type", "corr", "headers", "prio")


class Accepted(NamedTuple):
    """What became of row `i`.

    `accepted`; `duplicate` (of message `id`); `conflict` (its id means another); or not stored: `stale`, since what it
    was decided by has changed, or `moved`, since routes have, and it wants to be matched `again`. `direct`: it needs no
    routing pool, its deliveries are stored with it.
    """

    i: int
    outcome: str
    id: str
    direct: bool


class StoredMessage(NamedTuple):
    """A message as accepted; headers and payload are JSON text."""

    id: str
    client_id: str | None
    external_id: str | None
    source: str
    type: str
    correlation_id: str
    ordering_key: str | None
    priority: int
    expires_at: Any
    reply_to: str | None
    traceparent: str | None
    headers: str
    payload: str | None
    created_at: Any


def accept_each(
    cursor: Cursor, rows: Sequence[Mapping[str, Any]], alike: Mapping[str, Any] | None = None
) -> list[Accepted]:
    """Store messages and their jobs in one statement, each that is not stale; see esb_accept for a row's fields.

    What the catalogue found in the payload of one that is accepted all the same is the row's `warning`. `alike`: fields
    among ALIKE that rows without them share.
    """
    warnings = [{"id": row["id"], **row["warning"]} for row in rows if "warning" in row]
    shared = alike or {}
    known = rows[0].get("known") if len(rows) > 1 else None
    if known and all(row.get("known") == known for row in rows):  # as mostly in a group of single ones
        rows, shared = [{**row, "known": None} for row in rows], {**shared, "known": known}
    _ACCEPT.execute(
        cursor,
        (
            dumps(rows),
            dumps(warnings) if warnings else None,
            dumps(shared["known"]) if "known" in shared else None,
            len(rows),
            *(shared.get(name) for name in ALIKE[1:-1]),
            shared.get("prio", DEFAULT_PRIORITY),
        ),
    )
    return [Accepted(*row) for row in cursor.fetchall()]


def accept(cursor: Cursor, rows: Sequence[Mapping[str, Any]], alike: Mapping[str, Any] | None = None) -> list[Accepted]:
    """The same, all or none: to be called inside a transaction if there are several.

    Raises StaleRevision if what one of them was decided by has changed.
    """
    outcomes = accept_each(cursor, rows, alike)
    if any(outcome.outcome == STALE for outcome in outcomes):
        raise StaleRevision
    return outcomes


def is_known(cursor: Cursor, scope: str, key: str) -> bool:
    """Whether a message was accepted under a key."""
    cursor.execute("select 1 from idempotency where scope = %s and key = %s and expires_at >= now()", (scope, key))
    return cursor.fetchone() is not None


def load(cursor: Cursor, ids: Sequence[str]) -> dict[str, StoredMessage]:
    """Messages by id, in one round trip."""
    cursor.execute(
        "select id, client_id, external_id, source, type, correlation_id, ordering_key, priority, expires_at, reply_to,"
        " traceparent, headers, payload, created_at from message where id = any(%s::uuid[])",
        (list(ids),),
    )
    return {row[0]: StoredMessage(*row) for row in cursor.fetchall()}


def newest(cursor: Cursor, count: int) -> list[StoredMessage]:
    """The last messages that are not redacted, newest first."""
    cursor.execute("select id from message where redacted_at is null order by id desc limit %s", (count,))
    return sorted(load(cursor, [row[0] for row in cursor.fetchall()]).values(), key=lambda m: m.id, reverse=True)


def forms(cursor: Cursor, deliveries: Sequence[str]) -> dict[str, tuple[str, str]]:
    """What transformations made for deliveries: (payload, headers) as JSON text, by delivery id."""
    cursor.execute(
        "select delivery_id, payload, headers from form where delivery_id = any(%s::uuid[])", (list(deliveries),)
    )
    return {row[0]: (row[1], row[2]) for row in cursor.fetchall()}
