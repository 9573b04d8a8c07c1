"""The rows of a route with options: parts, recipients of a message's own choice, slips, and what waits for others."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from esb_workers.errors import TransformationError
from esb_workers.routing import gather, parts
from esb_workers.routing.matching import Variables
from esb_workers.routing.route import Destination, Route
from esb_workers.routing.strategies import FIRST_AVAILABLE, Chooser
from esb_workers.store.messages import StoredMessage

Json = dict[str, Any]
MakeRow = Callable[[Variables, Destination], Json]


class Maker(Protocol):
    """Makes rows of one message on one route."""

    def deliver(self, part: Variables, destination: Destination) -> Json:
        """The delivery of a part to a destination, with its form."""
        ...

    def deliver_late(self, part: Variables) -> list[Json]:
        """The one delivery of a part that goes to whichever destination is not held, and the wire taps'."""
        ...

    def bare(self, part: Variables, destination: Destination) -> Json:
        """The delivery without a form; with a status if the sender's grant does not cover the destination."""
        ...

    def refuse(self, part: Variables, destination: Destination, why: str) -> Json:
        """The delivery of what cannot even be tried."""
        ...

    def waiting(self, part: Variables, index: int, shown: str) -> Json:
        """The delivery of what waits for others, before it is known where it will go; `shown` until then."""
        ...

    def group_lane(self) -> int:
        """The lane of the route's groups."""
        ...


def rows(route: Route, variables: Variables, stored: StoredMessage, chooser: Chooser, maker: Maker) -> list[Json]:
    """The deliveries of a message, and what joins a group; dead ones where it, or a part of it, cannot be handled."""
    try:
        found = parts.parts(route, variables)
    except TransformationError as error:
        return _refused(route, variables, maker, error.detail)
    made: list[Json] = []
    for part in found:
        try:
            made += _rows_of(route, part, stored, chooser, maker)
        except TransformationError as error:
            made += _refused(route, part, maker, error.detail)
    return made


def _rows_of(route: Route, part: Variables, stored: StoredMessage, chooser: Chooser, maker: Maker) -> list[Json]:
    if route.aggregate is not None:
        return [_collected(route, part, stored, maker)]
    if route.strategy == FIRST_AVAILABLE:
        return maker.deliver_late(part)
    if route.slip is not None:
        return _slip_rows(route, part, chooser, maker.deliver, maker.bare)
    made = [maker.deliver(part, destination) for destination in parts.destinations(route, part, chooser)]
    if route.resequence is not None:
        return gather.joins_sequence(route, part, stored, maker.group_lane(), made)
    return made


def _collected(route: Route, part: Variables, stored: StoredMessage, maker: Maker) -> Json:
    """A part that waits for others; forbidden at once if its sender may not reach every destination."""
    targets = [destination for destination in route.destinations if not destination.wire_tap]
    bare = [maker.bare(part, destination) for destination in targets]
    barred = next((row for row in bare if "status" in row), None)
    if barred is not None:
        return barred
    shown = (targets[0].index, targets[0].service) if len(targets) == 1 else (-1, route.name)
    return gather.joins_collection(route, part, stored, maker.group_lane(), maker.waiting(part, *shown))


def _refused(route: Route, part: Variables, maker: Maker, why: str) -> list[Json]:
    targets = [destination for destination in route.destinations if not destination.wire_tap]
    return [maker.refuse(part, destination, why) for destination in targets or [Destination(-1, route.name)]]


def _slip_rows(route: Route, part: Variables, chooser: Chooser, deliver: MakeRow, bare: MakeRow) -> list[Json]:
    """The first stop, which knows the others; when one of them is out of reach, that one alone, and nothing starts."""
    taps = [deliver(part, d) for d in parts.destinations(route, part, chooser) if d.wire_tap]
    stops = parts.stops(route, part)
    if not stops:
        return taps
    barred = [row for stop in stops if (row := bare(part, stop)).get("status") == "forbidden"]
    if barred:
        return [*taps, barred[0]]
    first = deliver(part, stops[0])
    first["cursor"]["slip"] = [[stop.index, stop.service, stop.transformation is not None] for stop in stops[1:]]
    return [*taps, first]
