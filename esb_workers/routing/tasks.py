"""The routing pool: match → transform → fan out, a batch of messages at a time.

Everything between the two statements is computation over what is in memory, so a batch is handled in the pump's own
thread. A message is routed by the routes in force when it is claimed, which are at least those in force when it was
accepted: the claim says which revision that is.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Final

import orjson

from esb_workers import drill
from esb_workers.clock import to_wire
from esb_workers.errors import TransformationError
from esb_workers.routing import fanout, matching
from esb_workers.routing.book import Book
from esb_workers.routing.matching import Message, Variables
from esb_workers.routing.route import Destination, Route
from esb_workers.routing.table import Match
from esb_workers.runtime.batch import BatchEngine
from esb_workers.runtime.engine import Engine
from esb_workers.runtime.ringer import Ringer
from esb_workers.settings import Settings
from esb_workers.store import jobs, lanes, messages
from esb_workers.store.engine import Database
from esb_workers.store.ids import new_id
from esb_workers.store.jobs import Claim, Done
from esb_workers.store.messages import StoredMessage

log = logging.getLogger(__name__)

DELIVERY: Final = 2
NO_ROUTE: Final = "no route took the message"
NO_PART: Final = "the routes that took the message made no delivery of it: an empty list, or no destination for a part"

Json = dict[str, Any]


def make_engine(settings: Settings, database: Database, ringer: Ringer) -> Engine:
    """The engine of the routing pool."""
    return BatchEngine("routing", settings, database, ringer, Routing(database, ringer))


class Routing:
    """What the pool does with a batch of claims."""

    def __init__(self, database: Database, ringer: Ringer) -> None:
        self._database = database
        self._ringer = ringer
        self._book = Book(database)
        self._lanes: dict[str, int] = {}  # by service; lane ids never change

    def handle(self, worker: int, claims: Sequence[Claim]) -> Done:
        """Route the claimed messages and record the deliveries in one statement."""
        with self._database.cursor() as cursor:
            found = messages.load(cursor, [claim.id for claim in claims])
        now = datetime.now(UTC)
        results = [{"id": c.id, "attempt": c.attempt, **self._routed(found.get(c.id), c, now)} for c in claims]
        drill.crash_point(drill.MID_BATCH)
        with self._database.cursor() as cursor:
            done = jobs.routed(cursor, worker, results)
        drill.crash_point(drill.AFTER_COMMIT_BEFORE_RING)
        self._ringer.ring("delivery")
        return done

    def _routed(self, stored: StoredMessage | None, claim: Claim, now: datetime) -> Json:
        """The deliveries of a message (`to`), or how it ended without any (`end`)."""
        if stored is None or stored.payload is None:
            return _end("failed", "the message is no longer stored")
        if stored.expires_at is not None and stored.expires_at <= now:
            return _end("expired", "expired before it was routed")
        try:
            return self._fan_out(stored, claim, now)
        except Exception:
            # A defect, or a plug-in's: it must not take the rest of the batch with it.
            log.exception("message %s could not be routed", stored.id, extra={"correlationId": stored.correlation_id})
            return _end("failed", "routing failed: see the log of the routing worker")

    def _fan_out(self, stored: StoredMessage, claim: Claim, now: datetime) -> Json:
        message = as_json(stored)
        matches = self._book.at(claim.rev).match(message, now)
        if not matches:
            return _end("unroutable", NO_ROUTE)
        variables = matching.variables_of(message, now)
        rows = [row for match in matches for row in self._rows(stored, message, variables, match)]
        return {"to": rows} if rows else _end("unroutable", NO_PART)

    def _rows(self, stored: StoredMessage, message: Message, variables: Variables, match: Match) -> list[Json]:
        if not match.route.is_plain:
            return self._parted_rows(stored, message, variables, match.route)
        return self._plain_rows(stored, message, variables, match)

    def _plain_rows(self, stored: StoredMessage, message: Message, variables: Variables, match: Match) -> list[Json]:
        choice = matching.open_choice(match.route, variables)
        choice = [d for d in choice if self._book.may_use(stored.client_id, d.name)]
        if not choice:
            return [self._delivery(stored, message, variables, match.route, d) for d in match.destinations]
        taps = [d for d in match.destinations if d.wire_tap]
        return [
            self._chosen_late(stored, message, variables, match.route, choice),
            *(self._delivery(stored, message, variables, match.route, d) for d in taps),
        ]

    def _parted_rows(self, stored: StoredMessage, message: Message, variables: Variables, route: Route) -> list[Json]:
        chooser = self._book.chooser

        def late(part: Variables) -> list[Json]:
            return self._plain_rows(stored, message, part, Match(route, matching.choose(route, part, chooser)))

        def make(part: Variables, destination: Destination) -> Json:
            return self._delivery(stored, message, part, route, destination)

        def refuse(destination: Destination, why: str) -> Json:
            row = self._row(stored, route, destination)
            row["cursor"]["failed"] = {"class": "TransformationError", "error": why}
            return row | _ended("dead", "TransformationError", why, stored)

        return fanout.rows(route, variables, chooser, make, late, refuse)

    def _chosen_late(
        self, stored: StoredMessage, message: Message, variables: Variables, route: Route, choice: list[Destination]
    ) -> Json:
        """One delivery that goes to whichever of several destinations is not held when an attempt is made."""
        rows = [self._delivery(stored, message, variables, route, destination) for destination in choice]
        good = [row for row in rows if "status" not in row and "failed" not in row["cursor"]]
        if len(good) < 2:
            return (good or rows)[0]
        # A lane of the route's own: that of a destination would be shut while another one is open.
        row = good[0] | {"lane": self._lane(f"|{route.id}")}
        row["cursor"] = row["cursor"] | {"any": [[one["cursor"]["i"], one["cursor"]["dest"]] for one in good]}
        if any("payload" in one for one in good):
            row["cursor"]["form"] = True
            for part, own in (("payload", stored.payload), ("headers", stored.headers)):
                row[part] = orjson.dumps([one.get(part, own) for one in good]).decode()
        return row

    def _delivery(
        self, stored: StoredMessage, message: Message, variables: Variables, route: Route, destination: Destination
    ) -> Json:
        row = self._row(stored, route, destination)
        if route.split is not None:
            row["cursor"]["index"] = variables["index"]
        if not self._book.may_use(stored.client_id, destination.name):
            return row | _ended("forbidden", "Forbidden", "the client's grant does not cover this service", stored)
        key = matching.ordering_key(route, destination, message, variables)
        if key is not None:
            row["okey"] = key
        if matching.transforms(route, destination):
            try:
                payload, headers = matching.form(route, destination, variables)
                row["payload"], row["headers"] = _text(payload), _text(headers)
                row["cursor"]["form"] = True  # so that deliveries without one need not look for it
            except TransformationError as error:
                # Kept with it: when it is retried, it must not go out as the message came.
                row["cursor"]["failed"] = {"class": "TransformationError", "error": error.detail}
                if key is not None and destination.blocks_when_dead:  # takes its place in the order, to block it
                    return row
                return row | _ended("dead", "TransformationError", error.detail, stored)
        return row

    def _row(self, stored: StoredMessage, route: Route, destination: Destination) -> Json:
        return {
            "id": new_id(),
            "lane": self._lane(destination.name),
            "route": route.id,
            "prio": stored.priority,
            "cursor": {"i": destination.index, "dest": destination.service},
        }

    def _lane(self, service: str) -> int:
        found = self._lanes.get(service)
        if found is None:
            with self._database.cursor() as cursor:
                found = self._lanes[service] = lanes.lane_id(cursor, DELIVERY, service)
        return found


def as_json(stored: StoredMessage) -> Json:
    """A message as expressions and conditions see it: as the API shows it."""
    return {
        "id": stored.id,
        "messageId": stored.external_id or stored.id,
        "source": stored.source,
        "messageType": stored.type,
        "payload": orjson.loads(stored.payload or "null"),
        "headers": orjson.loads(stored.headers),
        "correlationId": stored.correlation_id,
        "orderingKey": stored.ordering_key,
        "priority": stored.priority,
        "createdAt": to_wire(stored.created_at),
    }


def _end(status: str, reason: str) -> Json:
    return {"to": [], "end": {"status": status, "reason": reason}}


def _ended(status: str, error_class: str, reason: str, stored: StoredMessage) -> Json:
    log.warning(
        "a delivery of message %s ends as %s: %s",
        stored.id,
        status,
        reason,
        extra={"correlationId": stored.correlation_id},
    )
    return {"status": status, "class": error_class, "detail": {"error": reason, "class": error_class}}


def _text(value: Any) -> str:
    try:
        return orjson.dumps(value).decode()
    except (TypeError, ValueError) as error:  # an integer beyond 64 bits, a lone surrogate
        raise TransformationError(f"the result is not JSON that can be sent: {error}") from error
