"""Routing at accept: a message that needs no more than a match gets its deliveries in the statement that stores it.

It spares the message the routing pool: a claim, two round trips and a bell, half of what a message costs. It is safe
because the statement that accepts looks whether the routes asked here are still those in force. If they are not, the
message is matched once more, as soon as a thread of its own has taken the change in; if that takes long, or they have
changed again, it is left to the routing pool, so that no sender waits for more than one change. All else goes by way of
the pool too: what is ordered (one router a key makes the order), late, split or transformed, what nobody takes or the
sender's grant does not cover, and what would keep a request waiting for it.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping, Sequence
from dataclasses import fields
from datetime import datetime
from functools import lru_cache
from typing import Any, Final, NamedTuple

from esb_workers.expressions.functions import bound
from esb_workers.registry.clients import Client
from esb_workers.routing.book import Book
from esb_workers.routing.renewer import Renewer
from esb_workers.routing.route import Destination, Route
from esb_workers.routing.table import Match
from esb_workers.store import lanes
from esb_workers.store.engine import Database
from esb_workers.store.ids import new_id
from esb_workers.store.revision import Known

log = logging.getLogger(__name__)

DELIVERY: Final = 2
#: More expressions than these are not evaluated while a caller waits.
MAX_FILTERS: Final = 16
#: Changed routes that are put in force while messages wait for it, a few hundred microseconds.
FEW: Final = 20
#: What a match is decided by. Services are not: who is called is decided when it is.
TOPICS: Final = ("routes", "lookup_tables")

#: What a route may say and still be no more than a match. A field that is not named here must have its default.
_ROUTE: Final = frozenset(
    ("id", "name", "pattern", "destinations", "conditions", "filter", "priority", "stop_on_match")
    + ("enabled", "retry_policy", "timeout", "default", "dead_letter")
)
_DESTINATION: Final = frozenset(
    ("index", "service", "path", "method", "timeout", "retry_policy")
    + ("weight", "condition", "wire_tap", "blocks_when_dead")
)

Json = dict[str, Any]


class Direct(NamedTuple):
    """Deliveries as esb_accept takes them, and the registrations they were decided by.

    `rows`: None if by these the routing pool is to decide. Whether they are still in force is asked all the same: a
    process that knows of no route for a message would otherwise never hear of one.
    """

    rows: list[Json] | None
    matched: Known


class DirectRouter:
    """Routes messages of clients while they are accepted. One a process; safe for threads."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._book = Book(database)
        #: Around the book while a message is matched: it changes in place.
        self._lock = threading.Lock()
        #: What the book may be asked by; None: it is still being read.
        self._matched: Known | None = None
        self._renewing = threading.Lock()
        self._renewer = Renewer(self.renew)
        self._lanes: dict[str, int] = {}  # by service; lane ids never change

    def deliveries(self, message: Mapping[str, Any], client: Client, now: datetime) -> Direct | None:
        """The deliveries of a client's message given as JSON; None: the routing pool is to decide."""
        if self._matched is None:
            self.renew_soon()
            return None
        with self._lock:  # while it is matched as well: the table changes in place
            matched = self._matched
            matches = None if matched is None else self._matches(message, now)
        return None if matched is None else Direct(self._rows(matches or [], client, message["priority"]), matched)

    def _rows(self, matches: Sequence[Match], client: Client, priority: int) -> list[Json] | None:
        chosen = [(match.route, destination) for match in matches for destination in match.destinations]
        if not chosen or not all(client.may_use(destination.name) for _, destination in chosen):
            return None
        return [self._delivery(route, destination, priority) for route, destination in chosen]

    def _matches(self, message: Mapping[str, Any], now: datetime) -> list[Match] | None:
        table = self._book.table
        try:
            candidates = table.candidates(message)
            if not _light([*candidates.plain, *candidates.default]):
                return None
            with bound(self._book.host):
                return table.match_among(candidates, message, now)
        except Exception:  # a defect: it is the routing pool's to show it, and not the caller's
            log.exception("message %s could not be matched at accept", message["id"])
            return None

    def renew(self) -> None:
        """Take in what has changed. Raises Unavailable."""
        with self._renewing:
            news = self._book.news()
            many = self._matched is None or len(news.routes) > FEW
            if many:  # it takes its time: until then the pool routes, and nobody waits for the lock
                with self._lock:
                    self._matched = None
                self._book.take(news)
            with self._lock:
                if not many:
                    self._book.take(news)
                self._matched = {topic: news.topics[topic] for topic in TOPICS}

    def renew_soon(self) -> None:
        """Have it done by a thread of its own. Never blocks, never raises."""
        self._renewer.ask()

    def renewed(self, matched: Known | None, seconds: float) -> None:
        """Wait until more is known than what a message was `matched` with; so many seconds at most.

        Of many that have met the same change, in turn on one thread or at once, the first waits for all.
        """
        if self._matched == matched:
            self._renewer.wait(seconds)

    def close(self) -> None:
        """Stop that thread."""
        self._renewer.close()

    def _delivery(self, route: Route, destination: Destination, priority: int) -> Json:
        return {
            "id": new_id(),
            "lane": self._lane(destination.name),
            "route": route.id,
            "prio": priority,
            "cursor": {"i": destination.index, "dest": destination.service},
        }

    def _lane(self, service: str) -> int:
        found = self._lanes.get(service)
        if found is None:
            with self._database.cursor() as cursor:
                found = self._lanes[service] = lanes.lane_id(cursor, DELIVERY, service)
        return found


def _light(routes: Sequence[Route]) -> bool:
    """Whether every route that may take a message is no more than a match, and all are quickly asked."""
    expressions = sum(
        (route.filter is not None) + sum(d.condition is not None for d in route.destinations) for route in routes
    )
    return expressions <= MAX_FILTERS and all(map(_plain, routes))


@lru_cache(maxsize=10_000)
def _plain(route: Route) -> bool:
    return _says_only(route, _ROUTE) and all(_says_only(d, _DESTINATION) for d in route.destinations)


def _says_only(item: Route | Destination, names: frozenset[str]) -> bool:
    return all(f.name in names or getattr(item, f.name) == f.default for f in fields(item))
