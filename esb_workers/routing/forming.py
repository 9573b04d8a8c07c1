"""Forms that need a call: made where deliveries are, by the thread that has the delivery, and kept with it.

A slow service so holds up the deliveries that need it, and never the routing of messages. What was formed is stored
before it is sent: every attempt sends the same, whatever the service would say now.
"""

from __future__ import annotations

import itertools
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

import orjson

from esb_workers.errors import TransformationError
from esb_workers.expressions.functions import bound
from esb_workers.registry.choice import Chooser
from esb_workers.registry.instances import Directory
from esb_workers.registry.limits import Limits
from esb_workers.registry.lookups import Lookups
from esb_workers.routing import matching, parts
from esb_workers.routing.asking import Asker
from esb_workers.routing.book import full_body
from esb_workers.routing.claim_check import receipt
from esb_workers.routing.messages import as_json
from esb_workers.routing.route import Destination, Route, compile_route
from esb_workers.routing.transform import Ask, Question
from esb_workers.store import routes
from esb_workers.store.engine import Database
from esb_workers.store.jobs import Claim
from esb_workers.store.messages import StoredMessage
from esb_workers.store.routes import RouteRow
from esb_workers.transport.transports import Transports

#: What is left to do, as a delivery's cursor says it (`raw`): all that its route says, or its destination's alone.
ALL, DESTINATION = "all", "destination"


class Former:
    """Makes forms. One a process; safe for threads."""

    def __init__(
        self, database: Database, directory: Directory, chooser: Chooser, transports: Transports, *, base_url: str
    ) -> None:
        self._database = database
        self._base_url = base_url  # of the API, for receivers
        self._asker = Asker(directory, chooser, transports, Limits(database, directory))
        self._lookups = Lookups()

    def form(
        self, claim: Claim, message: StoredMessage, payload: str, headers: dict[str, str]
    ) -> tuple[str, str, dict[str, Any] | None]:
        """Payload and headers as JSON text, made of those it has as yet, and a receipt if that is what goes out.

        Raises TransformationError, Unanswered.
        """
        with bound(self._lookups.refresh(self._database, claim.rev)):
            return self._form(claim, message, payload, headers)

    def _form(
        self, claim: Claim, message: StoredMessage, payload: str, headers: dict[str, str]
    ) -> tuple[str, str, dict[str, Any] | None]:
        cursor = claim.cursor or {}
        route = self._route(claim.route_id)
        destination = _destination(route, cursor)
        ask = self._ask(claim, message)
        variables = matching.variables_of(as_json(message), datetime.now(UTC))
        if cursor["raw"] == DESTINATION:
            variables |= {"payload": orjson.loads(payload), "headers": headers}
            made, says = matching.form_of_destination(destination, variables, ask), None
        else:
            found = parts.parts(route, variables)
            made, says = matching.form(route, destination, found[cursor.get("index", 0)], ask), route
        text = matching.as_text(made[0])
        return text, matching.as_text(made[1]), receipt(says, destination, self._base_url, claim.id, text)

    def _ask(self, claim: Claim, message: StoredMessage) -> Ask:
        numbers = itertools.count()

        def ask(question: Question) -> Any:
            return self._asker.ask(question, message, f"{claim.id}:enrich:{next(numbers)}")

        return ask

    def _route(self, route_id: str | None) -> Route:
        with self._database.cursor() as cursor:
            row = routes.by_id(cursor, [route_id]).get(route_id) if route_id else None
        if row is None:
            raise TransformationError("the route is gone")
        return _compiled(_Key(row))


class _Key:
    """A version of a route: what compiling it can be remembered by."""

    def __init__(self, row: RouteRow) -> None:
        self.row = row

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Key) and (self.row.id, self.row.etag) == (other.row.id, other.row.etag)

    def __hash__(self) -> int:
        return hash((self.row.id, self.row.etag))


@lru_cache(maxsize=1000)
def _compiled(key: _Key) -> Route:
    return compile_route(full_body(key.row), route_id=key.row.id)


def _destination(route: Route, cursor: dict[str, Any]) -> Destination:
    """The destination as its route describes it, as long as it still is that service."""
    listed = route.destinations[cursor["i"]] if 0 <= cursor["i"] < len(route.destinations) else None
    return listed if listed is not None and listed.service == cursor["dest"] else Destination(-1, cursor["dest"])
