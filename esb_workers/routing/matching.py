"""One route and one message: does it take it, which destinations, and in which form."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final

import orjson

from esb_workers.errors import EsbError, ExpressionError, TransformationError
from esb_workers.expressions.cel import Expression
from esb_workers.routing.route import Destination, Route
from esb_workers.routing.strategies import FIRST_AVAILABLE, Chooser, strategies
from esb_workers.routing.transform import Ask

#: Longer keys are stored as their hash, characters; those that senders give have at most so many.
MAX_KEY: Final = 255

Message = Mapping[str, Any]
Variables = Mapping[str, Any]


def variables_of(message: Message, now: datetime) -> dict[str, Any]:
    """What the expressions of routes see of a message given as JSON; `now` is aware."""
    return {
        "message": message,
        "payload": message.get("payload"),
        "headers": message.get("headers") or {},
        "source": message.get("source"),
        "messageType": message.get("messageType"),
        "correlationId": message.get("correlationId"),
        "now": now,
    }


def admits(route: Route, message: Message, variables: Variables) -> bool:
    """Whether an enabled route whose pattern matches takes the message."""
    if route.conditions is not None and not route.conditions.matches(message):
        return False
    return route.filter is None or refusal(route.filter, variables) is None


def objections(route: Route, message: Message, variables: Variables) -> list[str]:
    """Which of the route's clauses, apart from its pattern, say no, and why."""
    reasons = [] if route.enabled else ["the route is disabled"]
    if route.conditions is not None:
        reasons += [f"conditions: {reason}" for reason in route.conditions.explain(message)]
    if route.filter is not None and (reason := refusal(route.filter, variables)):
        reasons.append(f"filter: {reason}")
    return reasons


def refusal(expression: Expression, variables: Variables) -> str | None:
    """Why a filter or condition says no, or None when it says yes. An error or a non-boolean is a no."""
    try:
        answer = expression.evaluate(variables)
    except ExpressionError as error:
        return error.detail
    if answer is True:
        return None
    return f"{expression.source} is false" if answer is False else f"{expression.source} is not true or false"


def choose(route: Route, variables: Variables, chooser: Chooser) -> list[Destination]:
    """The destinations that get the message, in list order, wire taps included; empty when none's condition holds."""
    willing = [d for d in route.destinations if d.condition is None or refusal(d.condition, variables) is None]
    plain = [destination for destination in willing if not destination.wire_tap]
    if not plain:
        return []
    chosen: Sequence[Destination] = plain
    if route.strategy != "all":
        chosen = strategies()[route.strategy](plain, chooser.choice(route))
    if len(plain) == len(willing):
        return list(chosen)
    picked = {destination.index for destination in chosen}
    return [destination for destination in willing if destination.wire_tap or destination.index in picked]


def open_choice(route: Route, variables: Variables) -> list[Destination]:
    """The destinations among which each attempt of the route's one delivery chooses anew, in list order.

    Empty unless the strategy is `first_available`.
    """
    if route.strategy != FIRST_AVAILABLE:
        return []
    plain = [destination for destination in route.destinations if not destination.wire_tap]
    return [d for d in plain if d.condition is None or refusal(d.condition, variables) is None]


def transforms(route: Route, destination: Destination) -> bool:
    """Whether a delivery goes out in another form than the message."""
    return route.transformation is not None or destination.transformation is not None or route.split is not None


def services_asked(route: Route, destination: Destination) -> frozenset[str]:
    """The services that the transformations of a delivery ask."""
    pipelines = (route.transformation, destination.transformation)
    return frozenset().union(*(pipeline.services for pipeline in pipelines if pipeline is not None))


def form(
    route: Route, destination: Destination, variables: Variables, ask: Ask | None = None
) -> tuple[Any, dict[str, str]]:
    """Payload and headers of a delivery: the route's transformation, then the destination's upon it.

    Raises TransformationError, and with `ask` Unanswered; it concerns this delivery alone.
    """
    payload, headers = variables["item" if "item" in variables else "payload"], dict(variables["headers"])
    for pipeline in (route.transformation, destination.transformation):
        if pipeline is not None:
            payload, headers = pipeline.apply(payload, headers, variables, ask)
    return payload, headers


def form_of_destination(
    destination: Destination, variables: Variables, ask: Ask | None = None
) -> tuple[Any, dict[str, str]]:
    """Payload and headers as the destination's own transformation leaves them. Raises as `form`."""
    payload, headers = variables["payload"], dict(variables["headers"])
    if destination.transformation is None:
        return payload, headers
    return destination.transformation.apply(payload, headers, variables, ask)


def form_of_route(route: Route, variables: Variables) -> tuple[Any, dict[str, str]]:
    """Payload and headers as the route's own transformation leaves them. Raises TransformationError."""
    payload, headers = variables["item" if "item" in variables else "payload"], dict(variables["headers"])
    return (
        (payload, headers) if route.transformation is None else route.transformation.apply(payload, headers, variables)
    )


def as_text(value: Any) -> str:
    """A form as JSON text. Raises TransformationError for an integer beyond 64 bits or a lone surrogate."""
    try:
        return orjson.dumps(value).decode()
    except (TypeError, ValueError) as error:
        raise TransformationError(f"the result is not JSON that can be sent: {error}") from error


def ordering_key(route: Route, destination: Destination, message: Message, variables: Variables) -> str | None:
    """The key that orders a delivery: the destination's, the route's, the message's; None orders nothing.

    An expression that gives null, an empty text, or fails for want of a value, orders nothing either.
    """
    template = destination.ordering_key or route.ordering_key
    if template is None:
        return message.get("orderingKey")
    try:
        key = template.render(variables)
    except EsbError:
        return None
    return None if key is None else short_key(template.render_text(variables)) or None


def short_key(key: str) -> str:
    """A key as it is stored: a long one as its hash, for an index entry has its limits."""
    return key if len(key) <= MAX_KEY else hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()
