"""All routes in force, indexed by topic: which of them take a message.

A table is immutable; when routes change a new one is made. What a message costs is the routes whose pattern
matches its type, not the routes there are: types are looked up in a trie once and remembered.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import datetime
from typing import Any, NamedTuple

from esb_workers.errors import TransformationError
from esb_workers.expressions.topics import TopicTrie
from esb_workers.routing import matching
from esb_workers.routing import parts as parting
from esb_workers.routing.matching import Message, Variables
from esb_workers.routing.route import Destination, Route
from esb_workers.routing.strategies import Chooser

#: Message types remembered with their routes; beyond it the memory starts anew.
MAX_TYPES = 10_000


class Match(NamedTuple):
    """A route that takes a message, and the destinations it chose for it: never none."""

    route: Route
    destinations: list[Destination]


class _Candidates(NamedTuple):
    """The enabled routes whose pattern matches one type, in order."""

    plain: tuple[Route, ...]
    default: tuple[Route, ...]


class RoutingTable:
    """An index of compiled routes. Safe to share between threads."""

    def __init__(self, routes: Iterable[Route], chooser: Chooser | None = None) -> None:
        self.routes: tuple[Route, ...] = tuple(sorted(routes, key=lambda route: route.rank))
        self._chooser = chooser or Chooser()
        self._trie: TopicTrie[Route] = TopicTrie()
        for route in self.routes:
            self._trie.add(route.pattern, route)
        # Filled by any thread; two that meet do the same work twice and store the same.
        self._by_type: dict[str, _Candidates] = {}

    def match(self, message: Message, now: datetime) -> list[Match]:
        """The routes that take `message`, higher priority first, each with its destinations.

        A route with `stopOnMatch` that takes it is the last. Default routes are asked when no other took it.
        """
        candidates = self._candidates(message["messageType"])
        if not candidates.plain and not candidates.default:
            return []
        variables = matching.variables_of(message, now)
        taken = list(self._take(candidates.plain, message, variables))
        return taken or list(self._take(candidates.default, message, variables))

    def candidates(self, message_type: str) -> tuple[Route, ...]:
        """The enabled routes whose pattern matches this type, default routes included."""
        found = self._candidates(message_type)
        return found.plain + found.default

    def explain(self, message: Message, now: datetime) -> list[dict[str, Any]]:
        """What each route would do with `message`, in order, and which of its clauses said no."""
        variables = matching.variables_of(message, now)
        hits = set(self._trie.match(message["messageType"]))
        verdicts: dict[Route, dict[str, Any]] = {}
        taken: Route | None = None
        stopped_by: Route | None = None
        for route in sorted(self.routes, key=lambda r: (r.default, r.rank)):
            reasons = [] if route in hits else [f"pattern: {route.pattern} does not match {message['messageType']}"]
            reasons += matching.objections(route, message, variables)
            if stopped_by is not None:
                reasons.append(f"stopped by route {stopped_by.name}")
            elif route.default and taken is not None and not taken.default:
                reasons.append("default: another route took the message")
            verdicts[route] = self._verdict(route, reasons, variables)
            if verdicts[route]["matched"]:
                taken = route
                stopped_by = route if route.stop_on_match else None
        return [verdicts[route] for route in self.routes]

    def _candidates(self, message_type: str) -> _Candidates:
        found = self._by_type.get(message_type)
        if found is None:
            hits = [route for route in self._trie.match(message_type) if route.enabled]
            found = _Candidates(tuple(r for r in hits if not r.default), tuple(r for r in hits if r.default))
            if len(self._by_type) >= MAX_TYPES:
                self._by_type.clear()
            self._by_type[message_type] = found
        return found

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
