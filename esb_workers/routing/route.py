"""A route as it is written, checked and compiled: the one place that knows its fields."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from esb_workers.errors import FieldError, Invalid
from esb_workers.expressions.cel import Expression, compile_expression
from esb_workers.expressions.patterns import ROUTE_ROOTS, Conditions, compile_conditions
from esb_workers.expressions.templates import Template
from esb_workers.expressions.topics import parse_pattern
from esb_workers.registry.retries import RetryPolicy, parse_retry_policy
from esb_workers.registry.selection import WORKFLOW
from esb_workers.registry.versions import parse_range, parse_version
from esb_workers.routing import options, strategies
from esb_workers.routing.fields import Fields, flag, one_of, text_template, whole
from esb_workers.routing.fields import fault as _fault
from esb_workers.routing.options import Aggregate, Resequence, Split
from esb_workers.routing.transform import Pipeline, compile_pipeline

MAX_DESTINATIONS: Final = 100
MAX_PRIORITY: Final = 1_000_000
MAX_WEIGHT: Final = 1_000_000
MAX_TIMEOUT: Final = 3_600_000  # milliseconds
METHODS: Final = ("GET", "POST", "PUT", "PATCH", "DELETE")

#: Shown by the API and ignored when sent back.
READ_ONLY: Final = frozenset({"id", "createdAt", "updatedAt"})

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


@dataclass(frozen=True, slots=True, eq=False)
class Destination:
    """One destination of a route. Times in milliseconds."""

    index: int  # its place in the route's list
    service: str  # as written: `name` or `name@RANGE`
    path: Template | None = None
    method: str | None = None
    transformation: Pipeline | None = None
    timeout: int | None = None
    retry_policy: RetryPolicy | None = None
    ordering_key: Template | None = None
    weight: int = 1
    condition: Expression | None = None
    wire_tap: bool = False
    blocks_when_dead: bool = False  # onDead: "block"

    @property
    def name(self) -> str:
        """The service's name, without a range."""
        return self.service.partition("@")[0]


@dataclass(frozen=True, slots=True, eq=False)
class Route:
    """A route that is valid. Immutable and safe to share between threads."""

    id: str
    name: str
    pattern: str
    destinations: tuple[Destination, ...]
    conditions: Conditions | None = None
    filter: Expression | None = None
    transformation: Pipeline | None = None
    priority: int = 0
    stop_on_match: bool = False
    enabled: bool = True
    strategy: str = "all"
    retry_policy: RetryPolicy | None = None
    timeout: int | None = None
    ordering_key: Template | None = None
    default: bool = False
    dead_letter: str | None = None  # the service that is sent what ended dead
    split: Split | None = None
    recipients: Template | None = None
    slip: Template | None = None
    aggregate: Aggregate | None = None
    resequence: Resequence | None = None

    @property
    def is_plain(self) -> bool:
        """Whether a message becomes a delivery for each chosen destination, and nothing else."""
        return (
            self.split is None
            and self.recipients is None
            and self.slip is None
            and self.aggregate is None
            and self.resequence is None
        )

    def after_collection(self) -> Route:
        """What is left to do with a collection that is complete: the route's destinations, each with its own form."""
        return replace(self, transformation=None, split=None, aggregate=None)

    @property
    def rank(self) -> tuple[int, str]:
        """Sorts routes: higher priority first, then older ones, whose ids are smaller."""
        return -self.priority, self.id


def compile_route(body: Any, *, route_id: str = "") -> Route:
    """Compile the JSON of a route. Raises Invalid naming every fault at once by its path."""
    if not isinstance(body, Mapping):
        raise Invalid([FieldError("", "must be an object")])
    fields = Fields(body, "", READ_ONLY)
    recipients = fields.optional("recipients", None, options.services)
    slip = fields.optional("slip", None, options.services)
    named = fields.required if recipients is None and slip is None else _or_none(fields)
    route = Route(
        id=route_id,
        name=fields.required("name", _name),
        pattern=fields.required("pattern", _pattern),
        destinations=named("destinations", _destinations),
        conditions=fields.optional("conditions", None, _conditions),
        filter=fields.optional("filter", None, compile_expression),
        transformation=fields.optional("transformation", None, compile_pipeline),
        priority=fields.optional("priority", 0, whole(-MAX_PRIORITY, MAX_PRIORITY)),
        stop_on_match=fields.optional("stopOnMatch", False, flag),
        enabled=fields.optional("enabled", True, flag),
        strategy=fields.optional("strategy", "all" if recipients is None else strategies.RECIPIENT_LIST, _strategy),
        retry_policy=fields.optional("retryPolicy", None, parse_retry_policy),
        timeout=fields.optional("timeout", None, whole(1, MAX_TIMEOUT)),
        ordering_key=fields.optional("orderingKey", None, text_template),
        default=fields.optional("default", False, flag),
        dead_letter=fields.optional("deadLetter", None, service_name),
        split=fields.optional("split", None, options.split),
        recipients=recipients,
        slip=slip,
        aggregate=fields.optional("aggregate", None, options.aggregate),
        resequence=fields.optional("resequence", None, options.resequence),
    )
    _check_together(fields, route)
    fields.finish()
    return route


def _or_none(fields: Fields) -> Callable[[str, Callable[[Any, str], tuple[Destination, ...]]], tuple[Destination, ...]]:
    """Destinations need not be named where the message says where it goes."""
    return lambda name, check: fields.optional(name, (), lambda value, path: () if value == [] else check(value, path))


def _check_together(fields: Fields, route: Route) -> None:
    """Note what does not go together: nothing that is asked for may be left aside."""
    destinations = route.destinations or ()  # none, whatever the type says, where they are at fault themselves
    asks_message = route.recipients is not None or route.slip is not None
    if destinations and not asks_message and all(destination.wire_tap for destination in destinations):
        fields.wrong("destinations", "must have a destination that is not a wire tap")
    if (route.strategy == strategies.RECIPIENT_LIST) != (route.recipients is not None):
        fields.wrong("recipients", "belongs to the strategy recipient_list, which needs it")
    if route.slip is not None:
        if route.strategy != "all":
            fields.wrong("slip", "does not go with a strategy: the slip says where the message goes")
        for name, option in (("aggregate", route.aggregate), ("resequence", route.resequence)):
            if option is not None:
                fields.wrong("slip", f"does not go with {name}")
    if route.aggregate is not None and route.resequence is not None:
        fields.wrong("aggregate", "does not go with resequence")
    pipelines = (route.transformation, *(destination.transformation for destination in destinations))
    if route.strategy == "first_available":
        if any(pipeline.services for pipeline in pipelines if pipeline):
            fields.wrong("strategy", "first_available does not go with enrich")
        if any(pipeline.threshold is not None for pipeline in pipelines if pipeline):
            fields.wrong("strategy", "first_available does not go with claim_check")
    if route.transformation is not None and route.transformation.threshold is not None:
        if route.aggregate is not None:
            fields.wrong("transformation", "claim_check goes with aggregate only in a destination's transformation")
        if any(destination.transformation is not None for destination in destinations):
            fields.wrong("transformation", "claim_check belongs in the destinations' transformations if they have any")
    if route.aggregate is not None and route.transformation is not None and route.transformation.services:
        fields.wrong("transformation", "enrich goes with aggregate only in a destination's transformation")
    if route.aggregate is not None and route.strategy == "first_available":
        fields.wrong("aggregate", "does not go with the strategy first_available")
    if route.resequence is not None and route.strategy == "first_available":
        fields.wrong("resequence", "does not go with the strategy first_available")


def _destinations(value: Any, path: str) -> tuple[Destination, ...]:
    if not isinstance(value, list) or not 1 <= len(value) <= MAX_DESTINATIONS:
        raise Invalid([FieldError(path, f"must be a list of 1 to {MAX_DESTINATIONS} destinations")])
    found: list[Destination] = []
    faults: list[FieldError] = []
    for index, item in enumerate(value):
        try:
            found.append(_destination(index, item, f"{path}[{index}]"))
        except Invalid as error:
            faults += error.errors
    if faults:
        raise Invalid(faults)
    return tuple(found)


def _destination(index: int, value: Any, path: str) -> Destination:
    if isinstance(value, str):
        return Destination(index, service_name(value, path))
    if not isinstance(value, Mapping):
        raise Invalid([FieldError(path, "must be the name of a service or an object")])
    fields = Fields(value, path)
    if "workflow" in value:
        return _workflow(index, fields)
    destination = Destination(
        index=index,
        service=fields.required("service", service_name),
        path=fields.optional("path", None, text_template),
        method=fields.optional("method", None, one_of(METHODS)),
        transformation=fields.optional("transformation", None, compile_pipeline),
        timeout=fields.optional("timeout", None, whole(1, MAX_TIMEOUT)),
        retry_policy=fields.optional("retryPolicy", None, parse_retry_policy),
        ordering_key=fields.optional("orderingKey", None, text_template),
        weight=fields.optional("weight", 1, whole(0, MAX_WEIGHT)),
        condition=fields.optional("condition", None, compile_expression),
        wire_tap=fields.optional("wireTap", False, flag),
        blocks_when_dead=fields.optional("onDead", "continue", one_of(("continue", "block"))) == "block",
    )
    fields.finish()
    return destination


def _workflow(index: int, fields: Fields) -> Destination:
    """A destination that is no service: each delivery starts a run."""
    name = fields.required("workflow", _name)
    version = fields.optional("version", None, _version)
    destination = Destination(
        index=index,
        service=f"{WORKFLOW}{name}@{version}" if version else f"{WORKFLOW}{name}",
        transformation=fields.optional("transformation", None, compile_pipeline),
        retry_policy=fields.optional("retryPolicy", None, parse_retry_policy),
        ordering_key=fields.optional("orderingKey", None, text_template),
        weight=fields.optional("weight", 1, whole(0, MAX_WEIGHT)),
        condition=fields.optional("condition", None, compile_expression),
        wire_tap=fields.optional("wireTap", False, flag),
        blocks_when_dead=fields.optional("onDead", "continue", one_of(("continue", "block"))) == "block",
    )
    fields.finish()
    return destination


def _version(value: Any, path: str) -> str:
    try:
        parse_version(value if isinstance(value, str) else "")
    except ValueError as error:
        raise _fault(path, str(error)) from None
    return str(value)


def _name(value: Any, path: str) -> str:
    if not isinstance(value, str) or not _NAME.fullmatch(value):
        raise _fault(path, "must be 1 to 100 letters, digits, `.`, `_` or `-`, the first a letter or digit")
    return value


def service_name(value: Any, path: str) -> str:
    """A destination: `name` or `name@RANGE`. Raises Invalid."""
    name, at, wanted = value.partition("@") if isinstance(value, str) else (value, "", "")
    _name(name, path)
    if at:
        try:
            parse_range(wanted)
        except ValueError as error:
            raise _fault(path, f"the version range {error}") from None
    return str(value)


def _pattern(value: Any, path: str) -> str:
    return ".".join(parse_pattern(value, path))


def _conditions(value: Any, path: str) -> Conditions | None:
    # A map without entries asks for nothing. (As an event pattern on its own it is refused, as at AWS.)
    return None if value == {} else compile_conditions(value, roots=ROUTE_ROOTS, path=path)


def _strategy(value: Any, path: str) -> str:
    return one_of((*strategies.strategies(), strategies.RECIPIENT_LIST))(value, path)
