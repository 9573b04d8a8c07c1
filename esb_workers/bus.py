"""The front door: what the API asks of the bus. Each call is one transaction, then a ring.

The commit is the promise. The ring only shortens the wait, so it comes after the commit, costs the caller a
microsecond, and may fail.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, Literal

import orjson

from esb_workers import drill
from esb_workers.clock import to_wire
from esb_workers.errors import Conflict, IllegalTransition, NotFound, Unavailable
from esb_workers.registry import catalogue
from esb_workers.registry.clients import Client
from esb_workers.routing.direct import DirectRouter
from esb_workers.runtime.ringer import Ringer
from esb_workers.runtime.teller import Teller
from esb_workers.store import blocked_keys, bulk, jobs, lanes, message_log, messages, replays, unroutable
from esb_workers.store.engine import Cursor, Database, StaleRevision
from esb_workers.store.group import Group
from esb_workers.store.ids import new_id
from esb_workers.store.jobs import Key
from esb_workers.store.messages import DEFAULT_PRIORITY, Accepted
from esb_workers.store.replays import DeadLetterFilter
from esb_workers.store.revision import Known
from esb_workers.upkeep import bulk as bulk_steps
from esb_workers.upkeep import replays as replay_steps

ROUTING = 1
#: A row of esb_accept.
Row = dict[str, object]
#: Larger payloads (characters) are not looked into while their sender waits.
MAX_DIRECT: Final = 1 << 16
#: How long a message waits until a change of routes has been read, seconds; later ones find it read.
RENEWAL: Final = 0.025
#: The routing lane of the operator's messages; a client's is named by its id.
OPERATOR = "operator"
#: A row's fields that are simply a message's, by what they are called there.
_FIELDS: Final = {
    "client": "client_id", "source": "source", "type": "message_type", "corr": "correlation_id", "headers": "headers",
    "prio": "priority", "okey": "ordering_key", "reply": "reply_to", "trace": "traceparent", "replay_of": "replay_of",
    "to": "deliveries", "matched": "matched", "warning": "warning",
}  # fmt: skip
#: What a message's field decides, of that which the messages of a batch mostly have in common.
_DECIDED: Final = {
    "judged": ("known",), "client_id": ("client", "lane"), "source": ("source",), "message_type": ("type",),
    "correlation_id": ("corr",), "headers": ("headers",), "priority": ("prio",),
}  # fmt: skip
_NOTHING: Final[Row] = {}


@dataclass(slots=True)
class NewMessage:
    """A message that was found good, to be accepted. `headers` and `payload` are JSON text.

    Not frozen: that would triple what making one costs, and one is made for each message.
    """

    source: str
    message_type: str
    correlation_id: str
    headers: str
    payload: str
    id: str | None = None  # ours; None: made when it is stored
    client_id: str | None = None
    message_id: str | None = None  # the caller's own id
    own_correlation_id: str | None = None  # `correlation_id`, if the caller gave it with the message
    scope: str | None = None  # in which message_id is unique; None: it is not
    ordering_key: str | None = None
    priority: int | None = None
    deliver_at: datetime | None = None
    expires_at: datetime | None = None
    reply_to: str | None = None
    traceparent: str | None = None
    replay_of: str | None = None
    #: What makes two messages under one id the same, in place of everything that was said.
    fingerprint: str | None = None
    #: Revision of the catalogue by which its payload was judged, and what that found, if it is accepted all the same.
    judged: int | None = None
    warning: Row | None = None
    #: Its deliveries, where a match at accept was all it needed, and what it was matched with. If that has changed when
    #: it is stored, or if there are none, the routing pool decides.
    deliveries: Sequence[Row] | None = None
    matched: Known | None = None

    @property
    def waits_for_routing(self) -> bool:
        """Whether it asks for more than the present routes: order, a later time, an end, an answer."""
        special = (self.ordering_key, self.deliver_at, self.expires_at, self.reply_to, self.replay_of)
        return any(part is not None for part in special) or len(self.payload) > MAX_DIRECT

    def digest(self) -> str:
        """What makes two messages under one id the same: everything the caller said."""
        if self.fingerprint is not None:
            return hashlib.sha256(self.fingerprint.encode()).hexdigest()
        said = (
            self.source, self.message_type, self.headers, self.payload, self.ordering_key, self.priority,
            to_wire(self.deliver_at), to_wire(self.expires_at), self.reply_to, self.own_correlation_id,
        )  # fmt: skip
        return hashlib.sha256("\x1f".join(["" if part is None else str(part) for part in said]).encode()).hexdigest()


class Bus:
    """The front door of one process."""

    def __init__(self, database: Database, ringer: Ringer) -> None:
        self.database = database
        self.ringer = ringer
        self._line = database.line()
        self._lanes: dict[str, int] = {}  # lane ids never change
        self._group = Group(self._accept_together)
        self.router = DirectRouter(database)
        self._routers, self._deliverers = Teller("routing", ringer.voice), Teller("delivery", ringer.voice)

    def close(self) -> None:
        """Stop the threads of its own. What is stored goes on without them."""
        self.router.close()
        self.ringer.close()

    def route(self, new: NewMessage, client: Client | None) -> None:
        """Give the message its deliveries already, if that takes no more than a match: see routing.direct.

        What is known of its sender must be among what `publish` is told.
        """
        new.deliveries = new.matched = None
        if client is None or new.waits_for_routing:
            return
        new.id, now = new_id(), datetime.now(UTC)
        found = self.router.deliveries(_as_json(new, new.id, now), client, now)
        if found is not None:
            new.deliveries, new.matched = found.rows, found.matched

    def send(self, new: NewMessage, client: Client | None, known: Known | None) -> Accepted:
        """Accept a message of `client`, routed at once if that takes no more than a match. Raises as `publish`."""
        self.route(new, client)
        outcome = self._accept(self._row(0, new, known) | {"again": new.matched is not None})
        if outcome.outcome == messages.MOVED:
            # Cheaper than to wake the routing pool. Once: if routes have changed yet again, it goes by way of the pool.
            self.router.renewed(new.matched, RENEWAL)
            self.route(new, client)
            outcome = self._accept(self._row(0, new, known))
        self.committed([new], [outcome])
        return outcome

    def publish(self, new: Sequence[NewMessage], known: Known | None) -> list[Accepted]:
        """Accept messages; one outcome each, in order. Raises StaleRevision (then nothing is stored), Unavailable.

        `known` is what the caller decided by, of the registrations; None if nothing remembered was used.
        """
        if len(new) == 1:
            outcomes = [self._accept(self._row(0, new[0], known))]
        else:
            with self.database.raw_transaction() as cursor:
                outcomes = self.publish_in(cursor, new, known)
        self.committed(new, outcomes)
        return outcomes

    def _accept(self, row: Row) -> Accepted:
        outcome = self._group.add(row)
        if outcome.outcome == messages.STALE:
            raise StaleRevision
        return outcome

    def _accept_together(self, items: Sequence[Row]) -> list[Accepted]:
        """What several request threads want accepted at this moment, in one statement."""
        rows = [row | {"i": i} for i, row in enumerate(items)]
        with self._line.cursor() as cursor:
            outcomes = {o.i: o for o in messages.accept_each(cursor, rows)}
            drill.crash_point(drill.AFTER_INSERT)
            # Those of a key are ready only when it is promoted.
            fresh = [o.direct for o in outcomes.values() if o.outcome == "accepted" and items[o.i].get("okey") is None]
            self._deliverers.committed(cursor, sum(fresh))
            self._routers.committed(cursor, len(fresh) - sum(fresh))
        return [outcomes[i] for i in range(len(rows))]

    def publish_in(self, cursor: Cursor, new: Sequence[NewMessage], known: Known | None) -> list[Accepted]:
        """The same inside the caller's transaction; call `committed` after its commit."""
        alike = self._alike(new, known) if len(new) > 1 else {}
        rows = [self._row(i, message, known, alike) for i, message in enumerate(new)]
        outcomes = {o.i: o for o in messages.accept(cursor, rows, alike)}
        drill.crash_point(drill.AFTER_INSERT)
        return [outcomes[i] for i in range(len(rows))]

    def committed(self, new: Sequence[NewMessage], outcomes: Sequence[Accepted]) -> None:
        """After the commit: let keys go on, and ring."""
        drill.crash_point(drill.AFTER_COMMIT_BEFORE_RING)
        keys = {Key(self._lanes[m.client_id or OPERATOR], m.ordering_key) for m in new if m.ordering_key is not None}
        if keys:
            with self.database.cursor() as cursor:
                self._routers.committed(cursor, jobs.promote(cursor, keys))
        if not all(o.direct for o in outcomes):
            self.ringer.ring("routing")
        if any(o.direct for o in outcomes):
            self.ringer.ring("delivery")
        if any(m.deliveries and o.outcome == "accepted" and not o.direct for m, o in zip(new, outcomes, strict=True)):
            self.router.renew_soon()

    # --- what people do to messages ----------------------------------------------------------------------

    def replay(self, message_id: str, *, by: str, traceparent: str | None = None) -> tuple[NewMessage, str]:
        """Send a message's content again, through today's routes: the new message and its id.

        Raises NotFound, Conflict (`redacted`). What made the first one unique or late does not bind the new one.
        """
        with self.database.raw_transaction() as cursor:
            first = message_log.original(cursor, message_id)
            if first is None:
                raise NotFound
            if first.payload is None:
                raise Conflict("The message was redacted: there is nothing left to send.", code="redacted")
            again = _again(message_id, first, traceparent)
            (accepted,) = self.publish_in(cursor, [again], None)
            message_log.note_act(cursor, message_id, by, "replay", {"messageId": accepted.id})
        self.committed([again], [accepted])
        return again, accepted.id

    def replay_unroutable(self, ids: Sequence[str], *, by: str) -> list[tuple[str, str]]:
        """Send messages that no route took again, each once: (id, new id), oldest first. Others are passed by."""
        sent: list[tuple[str, str]] = []
        with self.database.raw_transaction() as cursor:
            firsts = [(id_, message_log.original(cursor, id_)) for id_ in unroutable.take(cursor, ids)]
            again = [
                _again(id_, first, None) for id_, first in firsts if first is not None and first.payload is not None
            ]
            outcomes = self.publish_in(cursor, again, None) if again else []
            for new, accepted in zip(again, outcomes, strict=True):
                first_id = str(new.replay_of)
                message_log.note_act(cursor, first_id, by, "replay", {"messageId": accepted.id})
                sent.append((first_id, accepted.id))
        if again:
            self.committed(again, outcomes)
        return sent

    def cancel(self, message_id: str, *, by: str) -> None:
        """Stop what of a message is not delivered yet; attempts in flight finish. Raises IllegalTransition."""
        with self.database.raw_transaction() as cursor:
            stopped, keys = message_log.cancel(cursor, message_id)
            if not stopped:
                raise IllegalTransition("The message has already come to its end.")
            message_log.note_act(cursor, message_id, by, "cancel")
        self._go_on(keys)

    def redact(self, message_id: str, *, by: str) -> None:
        """Take a message's content away for good. Raises NotFound, IllegalTransition unless it has ended."""
        with self.database.raw_transaction() as cursor:
            outcome = message_log.redact(cursor, message_id)
            if outcome is None:
                raise NotFound
            if outcome != "ok":
                raise IllegalTransition(f"The message is still {outcome}: only one that has ended can be redacted.")
            message_log.note_act(cursor, message_id, by, "redact")

    def retry(self, delivery_id: str, *, by: str) -> str:
        """Take a delivery up again, now and with a fresh budget: its message's id. Raises NotFound, Conflict."""
        with self.database.raw_transaction() as cursor:
            retried = message_log.retry(cursor, delivery_id)
            if retried is None:
                raise NotFound
            if retried.outcome != "ok":
                raise IllegalTransition(_UNTRIABLE[retried.outcome])
            message_log.note_act(cursor, retried.message_id, by, "retry", {"deliveryId": delivery_id})
        if retried.lane_id is not None:
            with self.database.cursor() as cursor:
                message_log.let_probe(cursor, retried.lane_id, delivery_id)
                jobs.promote(cursor, [Key(retried.lane_id, retried.okey)] if retried.okey is not None else [])
        self.ringer.ring("delivery")
        return retried.message_id

    def retry_head(self, delivery_id: str, *, by: str) -> str:
        """`retry`, of a delivery that is the head of an ordering key. Raises NotFound, IllegalTransition."""
        with self.database.cursor() as cursor:
            head = blocked_keys.is_head(cursor, delivery_id)
        if head is None:
            raise NotFound
        if not head:
            raise IllegalTransition(_NOT_HEAD, code="not_head")
        return self.retry(delivery_id, by=by)

    def end_head(self, delivery_id: str, how: Literal["skip", "park"], *, by: str) -> str:
        """Take the head of a key out of the way: its message's id. Raises NotFound, IllegalTransition."""
        with self.database.raw_transaction() as cursor:
            ended = blocked_keys.end_head(cursor, delivery_id, how)
            if ended is None:
                raise NotFound
            if ended.outcome != "ok":
                raise IllegalTransition(_NOT_HEAD, code="not_head")
            message_log.note_act(cursor, ended.message_id, by, how, {"deliveryId": delivery_id})
        if ended.lane_id is not None and ended.okey is not None:
            self._go_on([Key(ended.lane_id, ended.okey)])
        return ended.message_id

    def replay_dead_letters(
        self, wanted: DeadLetterFilter, shown: str, rate: float | None, *, by: str
    ) -> tuple[str, int]:
        """Start a replay of dead letters (`shown`: the filter as JSON text): its id, and how many it takes."""
        with self.database.raw_transaction() as cursor:
            replay_id, matched = replays.start(cursor, wanted, shown, rate)
            message_log.note_act(cursor, replay_id, by, "start", {"matched": matched}, resource="replay")
        try:
            if replay_steps.advance(self.database, replay_id):
                self.ringer.ring("delivery")
        except Unavailable:
            pass  # it is stored: the scheduler goes on with it
        return replay_id, matched

    def tell_many(
        self, row: dict[str, object], filters: dict[str, object], statuses: Sequence[str], *, by: str
    ) -> tuple[str, int]:
        """Start an act on many runs (`row`: action, reason, compensate, filter as JSON text): its id, and how many."""
        bulk_id = new_id()
        with self.database.raw_transaction() as cursor:
            matched = bulk.start(cursor, bulk_id, {**row, "actor": by}, filters, statuses)
            detail = {"action": row["action"], "matched": matched}
            message_log.note_act(cursor, bulk_id, by, "start", detail, resource="bulk")
        drill.crash_point(drill.AFTER_COMMIT_BEFORE_RING)
        try:
            if bulk_steps.advance(self.database, bulk_id):
                self.ringer.ring("orchestration")
        except Unavailable:
            pass  # it is stored: the scheduler goes on with it
        return bulk_id, matched

    def _go_on(self, keys: Sequence[Key]) -> None:
        """After the commit that freed `keys`: their next rows may go."""
        if keys:
            with self.database.cursor() as cursor:
                jobs.promote(cursor, keys)
            self.ringer.ring("routing")
            self.ringer.ring("delivery")

    def _alike(self, new: Sequence[NewMessage], known: Known | None) -> Row:
        """What all these messages have in common, as fields of a row: it is said and looked at once."""
        first = self._row(0, new[0], known)
        shared = [field for field in _DECIDED if len({getattr(message, field) for message in new}) == 1]
        return {name: first[name] for field in shared for name in _DECIDED[field] if name in first}

    def _row(self, i: int, m: NewMessage, known: Known | None, alike: Row = _NOTHING) -> Row:
        row: Row = {"i": i, "id": m.id or new_id(), "payload": m.payload}
        if "lane" not in alike:
            row["lane"] = self._lane(m.client_id or OPERATOR)
        for name, field in _FIELDS.items():
            if name not in alike and (value := getattr(m, field)) is not None:
                row[name] = value
        if (known or m.judged is not None) and "known" not in alike:
            row["known"] = (known or {}) if m.judged is None else {**(known or {}), catalogue.TOPIC: m.judged}
        if m.message_id is not None:
            row["ext"] = m.message_id
            if m.scope is not None:
                row["scope"], row["hash"] = m.scope, m.digest()
        if m.deliver_at is not None:
            row["at"] = to_wire(m.deliver_at)
        if m.expires_at is not None:
            row["exp"] = to_wire(m.expires_at)
        return row

    def _lane(self, name: str) -> int:
        found = self._lanes.get(name)
        if found is None:
            # On a connection of its own: were the caller's transaction rolled back, we would remember a lane that
            # does not exist, and messages put there would never be claimed.
            with self.database.cursor() as cursor:
                found = self._lanes[name] = lanes.lane_id(cursor, ROUTING, name)
        return found


_NOT_HEAD = "The delivery is not the head of an ordering key: nothing waits for it."


def _as_json(m: NewMessage, message_id: str, now: datetime) -> dict[str, Any]:
    """A message as routes see it: as the routing pool would show it to them."""
    return {
        "id": message_id,
        "messageId": m.message_id or message_id,
        "source": m.source,
        "messageType": m.message_type,
        "payload": orjson.loads(m.payload),
        "headers": orjson.loads(m.headers),
        "correlationId": m.correlation_id,
        "orderingKey": m.ordering_key,
        "priority": DEFAULT_PRIORITY if m.priority is None else m.priority,
        "createdAt": to_wire(now),
    }


def _again(message_id: str, first: message_log.Original, traceparent: str | None) -> NewMessage:
    """A message's content as a new message."""
    assert first.payload is not None
    return NewMessage(
        source=first.source,
        message_type=first.type,
        correlation_id=first.correlation_id,
        headers=first.headers,
        payload=first.payload,
        client_id=first.client_id,
        ordering_key=first.ordering_key,
        priority=first.priority,
        reply_to=first.reply_to,
        traceparent=traceparent,
        replay_of=message_id,
    )


#: Why a delivery is not retried.
_UNTRIABLE = {
    "delivered": "The delivery has been delivered; replay its message to send it once more.",
    "collected": "It has become part of another message: retry the deliveries of that one.",
    "in_flight": "An attempt is under way.",
    "gathered": "It waits for others of its collection or sequence: there is nothing to retry yet.",
    "forbidden": "The client's grant forbade this delivery; replay its message once the grant allows it.",
    "redacted": "The message was redacted: there is nothing left to send.",
}
