"""What routing keeps in memory of the registrations, good for the revision it was read at."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from esb_workers.errors import Invalid
from esb_workers.expressions.functions import Host
from esb_workers.registry.clients import Client, client_of
from esb_workers.routing.route import Route, compile_route
from esb_workers.routing.strategies import Chooser
from esb_workers.routing.table import RoutingTable
from esb_workers.store import clients, lookup_tables, revision, routes
from esb_workers.store.engine import Cursor, Database
from esb_workers.store.routes import RouteRow

log = logging.getLogger(__name__)


class Book:
    """Routes and grants. Not for several threads: the pump owns it."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._rev = -1
        self._routes_n: int | None = None
        self.chooser = Chooser()
        self._table = RoutingTable((), self.chooser)
        self._clients: dict[str, Client | None] = {}
        self._lookups_n: int | None = None
        self._lookups: dict[str, dict[str, Any]] = {}
        #: What expressions see, as of the last `at`: bind it around their evaluation.
        self.host = Host(tables=self._lookups)

    def at(self, rev: int) -> RoutingTable:
        """The routes in force at least at revision `rev`, as a claim named it."""
        if rev != self._rev:
            with self._database.cursor() as cursor:
                # The numbers first: rows read after them may be newer than they say, never older.
                topics = revision.by_topic(cursor)
                if topics["routes"] != self._routes_n:
                    self._catch_up(cursor)
                    self._routes_n = topics["routes"]
                if topics["lookup_tables"] != self._lookups_n:
                    tables = lookup_tables.in_force(cursor)
                    self._lookups.clear()
                    self._lookups.update(tables)
                    self._lookups_n = topics["lookup_tables"]
            self._clients.clear()
            self._rev = sum(topics.values())
        return self._table

    def _catch_up(self, cursor: Cursor) -> None:
        """Take in what changed, and only that: routes may be many, and messages are waiting."""
        known = self._routes_n
        for row in routes.in_force(cursor) if known is None else routes.changed_since(cursor, known):
            route = None if row.deleted_at is not None else _compiled(row)
            if route is None:
                self._table.remove(row.id)
            else:
                self._table.put(route)

    def route(self, route_id: str | None) -> Route | None:
        """A route by its id, as of the last `at`; one that was deleted too, for what it has begun."""
        found = self._table.get(route_id) if route_id is not None else None
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
