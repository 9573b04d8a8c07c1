"""What a message is made into, in the words of the store: a row for each delivery."""

from __future__ import annotations

import logging
from typing import Any, Final

import orjson

from esb_workers.errors import TransformationError
from esb_workers.routing import fanout, matching
from esb_workers.routing.book import Book
from esb_workers.routing.claim_check import receipt
from esb_workers.routing.matching import Message, Variables
from esb_workers.routing.route import Destination, Route
from esb_workers.routing.table import Match
from esb_workers.store import lanes
from esb_workers.store.engine import Database
from esb_workers.store.ids import new_id
from esb_workers.store.messages import StoredMessage

log = logging.getLogger(__name__)

ROUTING: Final = 1
DELIVERY: Final = 2

Json = dict[str, Any]


class RowMaker:
    """Makes rows. Not for several threads: the pump owns it."""

    def __init__(self, database: Database, book: Book, base_url: str) -> None:
        self._database = database
        self._base_url = base_url  # of the API, for receivers
        self.book = book
        self._lanes: dict[tuple[int, str], int] = {}  # by pool and name; lane ids never change

    def rows(self, stored: StoredMessage, message: Message, variables: Variables, match: Match) -> list[Json]:
        """What a message is made into on a route that takes it; a row with `gather` joins a group."""
        if not match.route.is_plain:
            maker = _PartMaker(self, stored, message, match.route)
            return fanout.rows(match.route, variables, stored, self.book.chooser, maker)
        return self.plain_rows(stored, message, variables, match)

    def plain_rows(self, stored: StoredMessage, message: Message, variables: Variables, match: Match) -> list[Json]:
        """A delivery for each destination, or one that chooses among them when it is tried."""
        choice = matching.open_choice(match.route, variables)
        choice = [d for d in choice if self.book.may_use(stored.client_id, d.name)]
        if not choice:
            return [self.delivery(stored, message, variables, match.route, d) for d in match.destinations]
        taps = [d for d in match.destinations if d.wire_tap]
        return [
            self._chosen_late(stored, message, variables, match.route, choice),
            *(self.delivery(stored, message, variables, match.route, d) for d in taps),
        ]

    def _chosen_late(
        self, stored: StoredMessage, message: Message, variables: Variables, route: Route, choice: list[Destination]
    ) -> Json:
        """One delivery that goes to whichever of several destinations is not held when an attempt is made."""
        rows = [self.delivery(stored, message, variables, route, destination) for destination in choice]
        good = [row for row in rows if "status" not in row and "failed" not in row["cursor"]]
        if len(good) < 2:
            return (good or rows)[0]
        # A lane of the route's own: that of a destination would be shut while another one is open.
        row = good[0] | {"lane": self.lane(f"|{route.id}")}
        row["cursor"] = row["cursor"] | {"any": [[one["cursor"]["i"], one["cursor"]["dest"]] for one in good]}
        if any("payload" in one for one in good):
            row["cursor"]["form"] = True
            for part, own in (("payload", stored.payload), ("headers", stored.headers)):
                row[part] = orjson.dumps([one.get(part, own) for one in good]).decode()
        return row

    def delivery(
        self, stored: StoredMessage, message: Message, variables: Variables, route: Route, destination: Destination
    ) -> Json:
        """A delivery with its form; with a status, it has ended already."""
        row = self.row(stored, variables, route, destination)
        if "status" in row:
            return row
        key = matching.ordering_key(route, destination, message, variables)
        if key is not None:
            row["okey"] = key
        if matching.transforms(route, destination):
            if asked := matching.services_asked(route, destination):
                return self._to_be_formed(stored, route, row, asked)
            try:
                payload, headers = matching.form(route, destination, variables)
                row["payload"], row["headers"] = matching.as_text(payload), matching.as_text(headers)
                check = receipt(route, destination, self._base_url, row["id"], row["payload"])
                if check is not None:
                    row["cursor"]["check"] = check
                row["cursor"]["form"] = True  # so that deliveries without one need not look for it
            except TransformationError as error:
                # Kept with it: when it is retried, it must not go out as the message came.
                row["cursor"]["failed"] = {"class": error.error_class, "error": error.detail}
                if key is not None and destination.blocks_when_dead:  # takes its place in the order, to block it
                    return row
                return row | _ended("dead", error.error_class, error.detail, stored)
        return row

    def _to_be_formed(self, stored: StoredMessage, route: Route, row: Json, asked: frozenset[str]) -> Json:
        """A delivery whose form needs calls, which are made where deliveries are."""
        barred = [service for service in asked if not self.book.may_use(stored.client_id, service.partition("@")[0])]
        if barred:
            why = f"the client's grant does not cover {barred[0]}, which this delivery is enriched by"
            return row | _ended("forbidden", "Forbidden", why, stored)
        whole = route.transformation is not None or route.split is not None
        row["cursor"]["raw"] = "all" if whole else "destination"
        if "okey" not in row:
            # Formed in a lane of the route's own, so that a slow service keeps up nothing else that goes to this
            # destination. What is ordered waits in its destination's lane, where its order is.
            row["cursor"]["then"], row["lane"] = row["lane"], self.lane(f"|{route.id}")
        return row

    def row(self, stored: StoredMessage, variables: Variables, route: Route, destination: Destination) -> Json:
        """A delivery without a form, forbidden if the sender's grant does not cover the destination."""
        name = destination.name
        row: Json = {
            "id": new_id(),
            "lane": self.lane(name),
            "route": route.id,
            "prio": stored.priority,
            "cursor": {"i": destination.index, "dest": destination.service},
        }
        if "index" in variables:  # a part of a message that was split
            row["cursor"]["index"] = variables["index"]
        if not self.book.may_use(stored.client_id, name):
            return row | _ended("forbidden", "Forbidden", "the client's grant does not cover this service", stored)
        return row

    def lane(self, service: str, pool: int = DELIVERY) -> int:
        """The id of a lane, made if it is new."""
        found = self._lanes.get((pool, service))
        if found is None:
            with self._database.cursor() as cursor:
                found = self._lanes[pool, service] = lanes.lane_id(cursor, pool, service)
        return found


class _PartMaker:
    """What `fanout` needs for one message on one route: see there."""

    def __init__(self, rows: RowMaker, stored: StoredMessage, message: Message, route: Route) -> None:
        self._rows, self._stored, self._message, self._route = rows, stored, message, route

    def deliver(self, part: Variables, destination: Destination) -> Json:
        return self._rows.delivery(self._stored, self._message, part, self._route, destination)

    def deliver_late(self, part: Variables) -> list[Json]:
        match = Match(self._route, matching.choose(self._route, part, self._rows.book.chooser))
        return self._rows.plain_rows(self._stored, self._message, part, match)

    def bare(self, part: Variables, destination: Destination) -> Json:
        return self._rows.row(self._stored, part, self._route, destination)

    def refuse(self, part: Variables, destination: Destination, why: str) -> Json:
        row = self._rows.row(self._stored, part, self._route, destination)
        row["cursor"]["failed"] = {"class": "TransformationError", "error": why}
        return row | _ended("dead", "TransformationError", why, self._stored)

    def waiting(self, part: Variables, index: int, shown: str) -> Json:
        lane = self._rows.lane(f"|{self._route.id}")  # no service's: none of their gates is to shut it
        where = {"i": index, "dest": shown} | ({"index": part["index"]} if "index" in part else {})
        return {"id": new_id(), "lane": lane, "cursor": where}

    def group_lane(self) -> int:
        return self._rows.lane(f"|{self._route.id}", ROUTING)


def _ended(status: str, error_class: str, reason: str, stored: StoredMessage) -> Json:
    log.warning(
        "a delivery of message %s ends as %s: %s",
        stored.id,
        status,
        reason,
        extra={"correlationId": stored.correlation_id},
    )
    return {"status": status, "class": error_class, "detail": {"error": reason, "class": error_class}}
