"""The front door: what the API asks of the bus. Each call is one transaction, then a ring.

The commit is the promise. The ring only shortens the wait, so it comes after the commit, costs the caller a
microsecond, and may fail.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from esb_workers import drill
from esb_workers.clock import to_wire
from esb_workers.runtime.ringer import Ringer
from esb_workers.store import jobs, lanes, messages
from esb_workers.store.engine import Cursor, Database
from esb_workers.store.ids import new_id
from esb_workers.store.jobs import Key
from esb_workers.store.messages import Accepted

ROUTING = 1
#: The routing lane of the operator's messages; a client's is named by its id.
OPERATOR = "operator"


@dataclass(frozen=True, slots=True)
class NewMessage:
    """A message that was found good, to be accepted. `headers` and `payload` are JSON text."""

    source: str
    message_type: str
    correlation_id: str
    headers: str
    payload: str
    client_id: str | None = None
    message_id: str | None = None  # the caller's own id
    scope: str | None = None  # in which message_id is unique; None: it is not
    ordering_key: str | None = None
    priority: int | None = None
    deliver_at: datetime | None = None
    expires_at: datetime | None = None
    reply_to: str | None = None
    traceparent: str | None = None
    replay_of: str | None = None

    def digest(self) -> str:
        """What makes two messages under one id the same: everything the caller said."""
        said = (
            self.source, self.message_type, self.headers, self.payload, self.ordering_key, self.priority,
            to_wire(self.deliver_at), to_wire(self.expires_at), self.reply_to,
        )  # fmt: skip
        return hashlib.sha256("\x1f".join("" if part is None else str(part) for part in said).encode()).hexdigest()


class Bus:
    """The front door of one process."""

    def __init__(self, database: Database, ringer: Ringer) -> None:
        self.database = database
        self.ringer = ringer
        self._lanes: dict[str, int] = {}  # lane ids never change

    def publish(self, new: Sequence[NewMessage], revision: int) -> list[Accepted]:
        """Accept messages; one outcome each, in order. Raises StaleRevision (then nothing is stored), Unavailable."""
        with self.database.cursor() as cursor:
            outcomes = self.publish_in(cursor, new, revision)
        self.committed(new)
        return outcomes

    def publish_in(self, cursor: Cursor, new: Sequence[NewMessage], revision: int) -> list[Accepted]:
        """The same inside the caller's transaction; call `committed` after its commit."""
        rows = [self._row(i, message) for i, message in enumerate(new)]
        outcomes = {o.i: o for o in messages.accept(cursor, revision, rows)}
        drill.crash_point(drill.AFTER_INSERT)
        return [outcomes[i] for i in range(len(rows))]

    def committed(self, new: Sequence[NewMessage]) -> None:
        """After the commit: let keys go on, and ring."""
        drill.crash_point(drill.AFTER_COMMIT_BEFORE_RING)
        keys = {Key(self._lanes[m.client_id or OPERATOR], m.ordering_key) for m in new if m.ordering_key is not None}
        if keys:
            with self.database.cursor() as cursor:
                jobs.promote(cursor, keys)
        self.ringer.ring("routing")

    def _row(self, i: int, m: NewMessage) -> dict[str, object]:
        row: dict[str, object] = {
            "i": i,
            "id": new_id(),
            "lane": self._lane(m.client_id or OPERATOR),
            "source": m.source,
            "type": m.message_type,
            "corr": m.correlation_id,
            "headers": m.headers,
            "payload": m.payload,
        }
        optional = {
            "client": m.client_id,
            "ext": m.message_id,
            "scope": m.scope if m.message_id is not None else None,
            "okey": m.ordering_key,
            "prio": m.priority,
            "at": to_wire(m.deliver_at),
            "exp": to_wire(m.expires_at),
            "reply": m.reply_to,
            "trace": m.traceparent,
            "replay_of": m.replay_of,
        }
        row.update((k, v) for k, v in optional.items() if v is not None)
        if "scope" in row:
            row["hash"] = m.digest()
        return row

    def _lane(self, name: str) -> int:
        found = self._lanes.get(name)
        if found is None:
            # On a connection of its own: were the caller's transaction rolled back, we would remember a lane that
            # does not exist, and messages put there would never be claimed.
            with self.database.cursor() as cursor:
                found = self._lanes[name] = lanes.lane_id(cursor, ROUTING, name)
        return found
