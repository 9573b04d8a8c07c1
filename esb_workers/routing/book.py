"""What routing keeps in memory of the registrations, good for the revision it was read at."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any, NamedTuple

from esb_workers.errors import Invalid
from esb_workers.expressions.functions import Host
from esb_workers.registry.clients import Client, client_of
from esb_workers.routing.route import Route, compile_route
from esb_workers.routing.strategies import Chooser
from esb_workers.routing.table import RoutingTable
from esb_workers.store import clients, lookup_tables, revision, routes
from esb_workers.store.engine import Database
from esb_workers.store.revision import Known
from esb_workers.store.routes import RouteRow

log = logging.getLogger(__name__)

Tables = dict[str, dict[str, Any]]


class News(NamedTuple):
    """What has changed since a book was last brought up to date."""

    topics: Known
    #: Routes by id as they are now, ready for use; None for one that is no more.
    routes: Mapping[str, Route | None]
    #: All lookup tables, if one of them has changed.
    tables: Tables | None


class Book:
    """Routes and grants. Not for several threads: the pump owns it."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._rev = -1
        #: What it was brought up to date by; empty: never yet.
        self.topics: Known = {}
        self.chooser = Chooser()
        self.table = RoutingTable((), self.chooser)
        self._clients: dict[str, Client | None] = {}
        self._lookups: Tables = {}
        #: What expressions see, as of the last `at`: bind it around their evaluation.
        self.host = Host(tables=self._lookups)

    def at(self, rev: int) -> RoutingTable:
        """The routes in force at least at revision `rev`, as a claim named it."""
        if rev != self._rev:
            self.take(self.news())
        return self.table

    def news(self) -> News:
        """What has changed, and only that: routes may be many, and messages are waiting. Changes nothing here."""
        with self._database.cursor() as cursor:
            # The numbers first: rows read after them may be newer than they say, never older.
            topics = revision.by_topic(cursor)
            known = self.topics.get("routes")
            rows: list[RouteRow] = []
            if known is None:
                rows = routes.in_force(cursor)
            elif topics["routes"] != known:
                rows = routes.changed_since(cursor, known)
            moved = topics["lookup_tables"] != self.topics.get("lookup_tables")
            tables = lookup_tables.in_force(cursor) if moved else None
        return News(topics, {row.id: None if row.deleted_at else _compiled(row) for row in rows}, tables)

    def take(self, news: News) -> None:
        """From now on it is so. The book asks nobody meanwhile."""
        for route_id, route in news.routes.items():
            if route is None:
                self.table.remove(route_id)
            else:
                self.table.put(route)
        if news.tables is not None:
            self._lookups.clear()
            self._lookups.update(news.tables)
        if news.topics["clients"] != self.topics.get("clients"):
            self._clients.clear()
        self.topics, self._rev = news.topics, sum(news.topics.values())

    def route(self, route_id: str | None) -> Route | None:
        """A route by its id, as of the last `at`; one that was deleted too, for what it has begun."""
        found = self.table.get(route_id) if route_id is not None else None
        if found is None and route_id is not None:
            with self._database.cursor() as cursor:
                rows = routes.by_id(cursor, [route_id])
            found = _compiled(rows[route_id]) if route_id in rows else None
        return found

    def may_use(self, client_id: str | None, service: str) -> bool:
        """Whether a message's sender may reach a service; the operator may, a client that was deleted may not."""
        if client_id is None:
            return True
        if client_id not in self._clients:
            with self._database.read() as connection:
                row = clients.get(connection, client_id)
            self._clients[client_id] = client_of(row) if row else None
        client = self._clients[client_id]
        return client is not None and client.may_use(service)


def full_body(row: RouteRow) -> Mapping[str, Any]:
    """A route as it was written: the columns, and all that has none of its own."""
    return {**row.body, "name": row.name, "priority": row.priority, "enabled": row.enabled}


def _compiled(row: RouteRow) -> Route | None:
    try:
        return compile_route(full_body(row), route_id=row.id)
    except Invalid as error:
        # It was good when it was saved: a plug-in is missing here, or this code is older than the one that took it.
        log.exception("route %s cannot be used by this worker: %s", row.name, error.detail)
        return None
