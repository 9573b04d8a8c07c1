"""The rows of a route with options: parts, recipients of a message's own choice, slips."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from esb_workers.errors import TransformationError
from esb_workers.routing import parts
from esb_workers.routing.matching import Variables
from esb_workers.routing.route import Destination, Route
from esb_workers.routing.strategies import FIRST_AVAILABLE, Chooser

Json = dict[str, Any]
#: Makes the row of a part for one destination.
Make = Callable[[Variables, Destination], Json]
#: Makes the one row of a part that goes to whichever destination is not held.
MakeLate = Callable[[Variables], list[Json]]
#: Makes the row of what cannot even be tried, and says why.
Refuse = Callable[[Destination, str], Json]


def rows(
    route: Route, variables: Variables, chooser: Chooser, make: Make, make_late: MakeLate, refuse: Refuse
) -> list[Json]:
    """The deliveries of a message; one dead one for each destination where it cannot be taken apart."""
    made: list[Json] = []
    try:
        for part in parts.parts(route, variables):
            if route.strategy == FIRST_AVAILABLE:
                made += make_late(part)
            elif route.slip is not None:
                made += _slip_rows(route, part, chooser, make)
            else:
                made += [make(part, destination) for destination in parts.destinations(route, part, chooser)]
    except TransformationError as error:
        targets = [destination for destination in route.destinations if not destination.wire_tap]
        return [refuse(d, error.detail) for d in targets or [Destination(-1, route.name)]]
    return made


def _slip_rows(route: Route, part: Variables, chooser: Chooser, make: Make) -> list[Json]:
    """The first stop, which knows the others; when one of them is out of reach, that one alone, and nothing starts."""
    taps = [make(part, d) for d in parts.destinations(route, part, chooser) if d.wire_tap]
    stops = parts.stops(route, part)
    if not stops:
        return taps
    tried = [make(part, stop) for stop in stops]
    barred = [row for row in tried if row.get("status") == "forbidden"]
    if barred:
        return [*taps, barred[0]]
    first = tried[0]
    first["cursor"]["slip"] = [[stop.index, stop.service] for stop in stops[1:]]
    return [*taps, first]
