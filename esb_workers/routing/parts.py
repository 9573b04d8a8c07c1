"""What becomes of one message on a route that splits it, or that asks the message where it goes. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from esb_workers.errors import EsbError, Invalid, TransformationError
from esb_workers.expressions.templates import Template
from esb_workers.routing import matching
from esb_workers.routing.matching import Variables
from esb_workers.routing.options import MAX_PARTS
from esb_workers.routing.route import MAX_DESTINATIONS, Destination, Route, service_name
from esb_workers.routing.strategies import Chooser


def parts(route: Route, variables: Variables) -> list[Variables]:
    """What expressions see of each part of a message; of a route that does not split, of the message itself.

    Raises TransformationError when there is no list to split.
    """
    if route.split is None:
        return [variables]
    items = _rendered(route.split.items, variables, "split.items")
    if not isinstance(items, list):
        raise TransformationError(f"split.items gave {_kind(items)}, not a list")
    if len(items) > MAX_PARTS:
        raise TransformationError(f"split.items gave {len(items)} items; {MAX_PARTS} are the most")
    return [{**variables, "item": item, "index": index} for index, item in enumerate(items)]


def destinations(route: Route, variables: Variables, chooser: Chooser) -> list[Destination]:
    """Who gets a part, wire taps included. Raises TransformationError when the message names no services."""
    if route.recipients is None and route.slip is None:
        return matching.choose(route, variables, chooser)
    if route.slip is not None:
        return [*stops(route, variables)[:1], *_taps(route, variables)]
    return [*_named(route, route.recipients, variables, "recipients"), *_taps(route, variables)]


def stops(route: Route, variables: Variables) -> list[Destination]:
    """Where a part goes one after another; none without a slip. Raises TransformationError."""
    return [] if route.slip is None else _named(route, route.slip, variables, "slip", repeats=True)


def _named(
    route: Route, template: Template | None, variables: Variables, what: str, *, repeats: bool = False
) -> list[Destination]:
    assert template is not None
    names = _rendered(template, variables, what)
    if isinstance(names, str):
        names = [names]
    if not isinstance(names, list):
        raise TransformationError(f"{what} gave {_kind(names)}, not a list of services")
    if not repeats:
        names = [name for place, name in enumerate(names) if name not in names[:place]]
    if len(names) > MAX_DESTINATIONS:
        raise TransformationError(f"{what} gave {len(names)} services; {MAX_DESTINATIONS} are the most")
    return [_destination(route, name, f"{what}[{place}]") for place, name in enumerate(names)]


def _destination(route: Route, name: Any, what: str) -> Destination:
    """The destination that the route lists under this name, with what it says of it; else one that says nothing."""
    try:
        service = service_name(name, what)
    except Invalid as error:
        raise TransformationError(error.detail) from None
    listed = (destination for destination in route.destinations if destination.service == service)
    return next(listed, Destination(-1, service))


def _taps(route: Route, variables: Variables) -> Iterator[Destination]:
    for destination in route.destinations:
        willing = destination.condition is None or matching.refusal(destination.condition, variables) is None
        if destination.wire_tap and willing:
            yield destination


def _rendered(template: Template, variables: Variables, what: str) -> Any:
    try:
        return template.render(variables)
    except EsbError as error:
        raise TransformationError(f"{what}: {error.detail}") from error


def _kind(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "a boolean"
    if isinstance(value, int | float):
        return "a number"
    return "a text" if isinstance(value, str) else "an object" if isinstance(value, dict) else "a list"
