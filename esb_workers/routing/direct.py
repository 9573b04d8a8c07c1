"""Routing at accept: a message that needs no more than a match gets its deliveries in the statement that stores it.

It spares the message the routing pool: a claim, two round trips and a bell, half of what a message costs. It is safe
because the statement that accepts refuses a stale revision of the registrations: the routes asked here are those in
force at that moment, as the routing pool would find them. All else goes by way of the pool: what is ordered (one
router a key makes the order), late, split or transformed, what nobody takes or the sender's grant does not cover, and
what would keep a request waiting for it.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping, Sequence
from dataclasses import fields
from datetime import datetime
from functools import lru_cache
from typing import Any, Final

from esb_workers.expressions.functions import bound
from esb_workers.routing.book import Book
from esb_workers.routing.route import Destination, Route
from esb_workers.store import lanes
from esb_workers.store.engine import Database
from esb_workers.store.ids import new_id

log = logging.getLogger(__name__)

DELIVERY: Final = 2
#: More expressions than these are not evaluated while a caller waits.
MAX_FILTERS: Final = 16

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


class DirectRouter:
    """Routes messages of clients while they are accepted. One a process; safe for threads."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._book = Book(database)
        self._lock = threading.Lock()  # around the book, which is made for one thread
        self._lanes: dict[str, int] = {}  # by service; lane ids never change

    def deliveries(self, message: Mapping[str, Any], client_id: str, revision: int, now: datetime) -> list[Json] | None:
        """The deliveries of a message given as JSON, as esb_accept takes them; None: the routing pool is to decide.

        They are good for an accept that holds `revision` to be the present one, and for no other.
        """
        with self._lock:  # while it is matched as well: the table changes in place
            table = self._book.at(revision)
            try:
                candidates = table.candidates(message)
                if not _light([*candidates.plain, *candidates.default]):
                    return None
                with bound(self._book.host):
                    matches = table.match_among(candidates, message, now)
            except Exception:  # a defect: it is the routing pool's to show it, and not the caller's
                log.exception("message %s could not be matched at accept", message["id"])
                return None
        chosen = [(match.route, destination) for match in matches for destination in match.destinations]
        with self._lock:
            granted = all(self._book.may_use(client_id, destination.name) for _, destination in chosen)
        if not chosen or not granted:
            return None
        return [self._delivery(route, destination, message["priority"]) for route, destination in chosen]

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
