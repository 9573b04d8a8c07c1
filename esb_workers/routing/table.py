"""All routes in force: which of them take a message, and what each would say of it.

What a message costs is the routes that it may match, not the routes there are, and a change costs the route that
changed: see `index`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import datetime
from typing import Any, NamedTuple

from esb_workers.errors import TransformationError
from esb_workers.expressions.patterns import ready
from esb_workers.expressions.topics import topic_matches
from esb_workers.routing import matching
from esb_workers.routing import parts as parting
from esb_workers.routing.index import RouteIndex
from esb_workers.routing.matching import Message, Variables
from esb_workers.routing.route import Destination, Route
from esb_workers.routing.strategies import Chooser


class Match(NamedTuple):
    """A route that takes a message, and the destinations it chose for it: never none."""

    route: Route
    destinations: list[Destination]


class Candidates(NamedTuple):
    """Routes to ask of a message, in order; `event` is that message made ready for their conditions."""

    plain: list[Route]
    default: list[Route]
    event: Message


class RoutingTable:
    """An index of compiled routes. May be changed between two messages, not while a thread matches one."""

    def __init__(self, routes: Iterable[Route] = (), chooser: Chooser | None = None) -> None:
        self._chooser = chooser or Chooser()
        self._routes: dict[str, Route] = {}
        self._plain, self._default = RouteIndex(), RouteIndex()
        for route in routes:
            self.put(route)

    @property
    def routes(self) -> tuple[Route, ...]:
        """Every route, in the order in which they are asked."""
        return tuple(sorted(self._routes.values(), key=lambda route: route.rank))

    def get(self, route_id: str) -> Route | None:
        """The route of this id, enabled or not."""
        return self._routes.get(route_id)

    def put(self, route: Route) -> None:
        """From now on this route is in force, in the place of the one with its id."""
        key = route.id or route.name
        self.remove(key)
        self._routes[key] = route
        if route.enabled:
            self._index_of(route).add(route)

    def remove(self, route_id: str) -> None:
        """From now on there is no such route; there need not have been one."""
        route = self._routes.pop(route_id, None)
        if route is not None and route.enabled:
            self._index_of(route).discard(route)

    def _index_of(self, route: Route) -> RouteIndex:
        return self._default if route.default else self._plain

    def match(self, message: Message, now: datetime, variables: Variables | None = None) -> list[Match]:
        """The routes that take `message`, higher priority first, each with its destinations.

        A route with `stopOnMatch` that takes it is the last. Default routes are asked when no other took it.
        `variables`: those of `message`, where the caller has made them already.
        """
        return self.match_among(self.candidates(message), message, now, variables)

    def candidates(self, message: Message) -> Candidates:
        """The routes worth asking whether they take `message`; no other would."""
        event = ready(message)
        return Candidates(self._plain.candidates(event), self._default.candidates(event), event)

    def match_among(
        self, candidates: Candidates, message: Message, now: datetime, variables: Variables | None = None
    ) -> list[Match]:
        """The same, of the candidates for `message`."""
        if not candidates.plain and not candidates.default:
            return []
        if variables is None:
            variables = matching.variables_of(message, now)
        taken = list(self._take(candidates.plain, candidates.event, variables))
        return taken or list(self._take(candidates.default, candidates.event, variables))

    def explain(self, message: Message, now: datetime) -> list[dict[str, Any]]:
        """What each route would do with `message`, in order, and which of its clauses said no."""
        variables = matching.variables_of(message, now)
        words = message["messageType"].split(".")
        verdicts: dict[Route, dict[str, Any]] = {}
        taken: Route | None = None
        stopped_by: Route | None = None
        routes = self.routes
        for route in sorted(routes, key=lambda r: r.default):
            hit = topic_matches(route.pattern.split("."), words)
            reasons = [] if hit else [f"pattern: {route.pattern} does not match {message['messageType']}"]
            reasons += matching.objections(route, message, variables)
            if stopped_by is not None:
                reasons.append(f"stopped by route {stopped_by.name}")
            elif route.default and taken is not None and not taken.default:
                reasons.append("default: another route took the message")
            verdicts[route] = self._verdict(route, reasons, variables)
            if verdicts[route]["matched"]:
                taken = route
                stopped_by = route if route.stop_on_match else None
        return [verdicts[route] for route in routes]

    def _take(self, routes: Iterable[Route], message: Message, variables: Variables) -> Iterator[Match]:
        for route in routes:
            if matching.admits(route, message, variables):
                # One with options takes what it admits: who gets which part is seen at the fan-out.
                plain = route.is_plain
                destinations = matching.choose(route, variables, self._chooser) if plain else list(route.destinations)
                if destinations or not plain:
                    yield Match(route, destinations)
                    if route.stop_on_match:
                        return

    def _verdict(self, route: Route, reasons: list[str], variables: Variables) -> dict[str, Any]:
        if not reasons and not route.is_plain:
            return _parted(route, variables)
        # A chooser of its own: a dry run takes no one's turn.
        destinations = [] if reasons else matching.choose(route, variables, Chooser())
        if not reasons and not destinations:
            reasons = _unwilling(route, variables)
        verdict = _said(route, bool(destinations), reasons, destinations)
        return verdict | _forms(route, destinations, variables) if destinations else verdict


def _said(route: Route, matched: bool, reasons: list[str], destinations: list[Destination]) -> dict[str, Any]:
    return {
        "route": route.name,
        "routeId": route.id or None,
        "matched": matched,
        "reasons": reasons,
        "destinations": [destination.service for destination in destinations],
        "transformedPayload": None,
    }


def _parted(route: Route, variables: Variables) -> dict[str, Any]:
    """What a route with options would do with each part of a message it takes."""
    chosen: dict[str, Destination] = {}
    forms: list[dict[str, Any]] = []
    try:
        for part in parting.parts(route, variables):
            to = parting.destinations(route, part, Chooser())
            chosen |= {destination.service: destination for destination in [*parting.stops(route, part), *to]}
            shown = _forms(route, to, part)["deliveries"] if to else []
            forms += [form | {"index": part.get("index")} for form in shown]
    except TransformationError as error:
        return _said(route, True, [error.detail], list(chosen.values()))
    reasons = [f"{form['destination']}: {form['error']}" for form in forms if form["error"]]
    said = _said(route, True, reasons, list(chosen.values()))
    return said | {"transformedPayload": forms[0]["payload"] if forms else None, "deliveries": forms}


def _unwilling(route: Route, variables: Variables) -> list[str]:
    return [
        f"destinations[{destination.index}].condition: {matching.refusal(destination.condition, variables)}"
        for destination in route.destinations
        if destination.condition is not None and not destination.wire_tap
    ]


def _forms(route: Route, destinations: list[Destination], variables: Variables) -> dict[str, Any]:
    """What each destination would be sent; `transformedPayload` is what the first one would."""
    forms: list[dict[str, Any]] = []
    reasons: list[str] = []
    for destination in destinations:
        shown: dict[str, Any] = {"destination": destination.service, "payload": None, "headers": None, "error": None}
        try:
            shown["payload"], shown["headers"] = matching.form(route, destination, variables)
        except TransformationError as error:
            shown["error"] = error.detail
            reasons.append(f"{destination.service}: {error.detail}")
        forms.append(shown)
    return {"transformedPayload": forms[0]["payload"], "deliveries": forms, "reasons": reasons}
