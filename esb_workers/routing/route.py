"""A route as it is written, checked and compiled: the one place that knows its fields."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from esb_workers.errors import FieldError, Invalid
from esb_workers.expressions.cel import Expression, compile_expression
from esb_workers.expressions.patterns import ROUTE_ROOTS, Conditions, compile_conditions
from esb_workers.expressions.templates import Template, compile_template
from esb_workers.expressions.topics import parse_pattern
from esb_workers.registry.retries import RetryPolicy, parse_retry_policy
from esb_workers.registry.versions import parse_range
from esb_workers.routing import strategies
from esb_workers.routing.transform import Pipeline, compile_pipeline

T = TypeVar("T")

MAX_DESTINATIONS: Final = 100
MAX_PRIORITY: Final = 1_000_000
MAX_WEIGHT: Final = 1_000_000
MAX_TIMEOUT: Final = 3_600_000  # milliseconds
METHODS: Final = ("GET", "POST", "PUT", "PATCH", "DELETE")

#: Shown by the API and ignored when sent back.
READ_ONLY: Final = frozenset({"id", "createdAt", "updatedAt"})
#: Part of the contract, and refused by name until they are there.
NOT_YET: Final = frozenset({"split", "aggregate", "recipients", "slip", "resequence", "replyTo"})

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

    @property
    def rank(self) -> tuple[int, str]:
        """Sorts routes: higher priority first, then older ones, whose ids are smaller."""
        return -self.priority, self.id


def compile_route(body: Any, *, route_id: str = "") -> Route:
    """Compile the JSON of a route. Raises Invalid naming every fault at once by its path."""
    if not isinstance(body, Mapping):
        raise Invalid([FieldError("", "must be an object")])
    fields = _Fields(body, "")
    route = Route(
        id=route_id,
        name=fields.required("name", _name),
        pattern=fields.required("pattern", _pattern),
        destinations=fields.required("destinations", _destinations),
        conditions=fields.optional("conditions", None, _conditions),
        filter=fields.optional("filter", None, compile_expression),
        transformation=fields.optional("transformation", None, compile_pipeline),
        priority=fields.optional("priority", 0, _whole(-MAX_PRIORITY, MAX_PRIORITY)),
        stop_on_match=fields.optional("stopOnMatch", False, _flag),
        enabled=fields.optional("enabled", True, _flag),
        strategy=fields.optional("strategy", "all", _strategy),
        retry_policy=fields.optional("retryPolicy", None, parse_retry_policy),
        timeout=fields.optional("timeout", None, _whole(1, MAX_TIMEOUT)),
        ordering_key=fields.optional("orderingKey", None, _text_template),
        default=fields.optional("default", False, _flag),
    )
    fields.finish()
    return route


class _Fields:
    """Takes the fields of an object one by one and collects what is wrong with them. Null means absent."""

    def __init__(self, body: Mapping[str, Any], path: str) -> None:
        self._body, self._prefix = body, f"{path}." if path else ""
        self._known: set[str] = set(READ_ONLY) if not path else set()
        self.faults: list[FieldError] = []

    def required(self, name: str, check: Callable[[Any, str], T]) -> T:
        """The checked field; what is answered after a fault is never used."""
        if self._body.get(name) is None:
            self._known.add(name)
            self.faults.append(FieldError(self._prefix + name, "is required"))
        nothing: Any = None
        checked: T = self.optional(name, nothing, check)
        return checked

    def optional(self, name: str, default: T, check: Callable[[Any, str], T]) -> T:
        """The checked field, or `default`."""
        self._known.add(name)
        if self._body.get(name) is None:
            return default
        try:
            checked: T = check(self._body[name], self._prefix + name)
        except Invalid as error:
            self.faults += error.errors
            return default
        return checked

    def finish(self) -> None:
        """Raise Invalid if there was any fault, a field that does not exist included."""
        for name, value in self._body.items():
            if name in NOT_YET and name not in self._known:
                if value is not None:
                    self.faults.append(FieldError(self._prefix + name, "is not available yet"))
            elif name not in self._known:
                self.faults.append(FieldError(self._prefix + name, "there is no such field"))
        if self.faults:
            raise Invalid(self.faults)


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
    if not faults and all(destination.wire_tap for destination in found):
        faults.append(FieldError(path, "must have a destination that is not a wire tap"))
    if faults:
        raise Invalid(faults)
    return tuple(found)


def _destination(index: int, value: Any, path: str) -> Destination:
    if isinstance(value, str):
        return Destination(index, _service(value, path))
    if not isinstance(value, Mapping):
        raise Invalid([FieldError(path, "must be the name of a service or an object")])
    fields = _Fields(value, path)
    destination = Destination(
        index=index,
        service=fields.required("service", _service),
        path=fields.optional("path", None, _text_template),
        method=fields.optional("method", None, _one_of(METHODS)),
        transformation=fields.optional("transformation", None, compile_pipeline),
        timeout=fields.optional("timeout", None, _whole(1, MAX_TIMEOUT)),
        retry_policy=fields.optional("retryPolicy", None, parse_retry_policy),
        ordering_key=fields.optional("orderingKey", None, _text_template),
        weight=fields.optional("weight", 1, _whole(0, MAX_WEIGHT)),
        condition=fields.optional("condition", None, compile_expression),
        wire_tap=fields.optional("wireTap", False, _flag),
        blocks_when_dead=fields.optional("onDead", "continue", _one_of(("continue", "block"))) == "block",
    )
    fields.finish()
    return destination


def _fault(path: str, message: str) -> Invalid:
    return Invalid([FieldError(path, message)])


def _name(value: Any, path: str) -> str:
    if not isinstance(value, str) or not _NAME.fullmatch(value):
        raise _fault(path, "must be 1 to 100 letters, digits, `.`, `_` or `-`, the first a letter or digit")
    return value


def _service(value: Any, path: str) -> str:
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


def _text_template(value: Any, path: str) -> Template:
    if not isinstance(value, str) or not value:
        raise _fault(path, "must be a string that is not empty")
    return compile_template(value, path)


def _strategy(value: Any, path: str) -> str:
    if isinstance(value, str) and value in strategies.NOT_YET:
        raise _fault(path, f"{value!r} is not available yet")
    return _one_of(tuple(strategies.strategies()))(value, path)


def _flag(value: Any, path: str) -> bool:
    if not isinstance(value, bool):
        raise _fault(path, "must be true or false")
    return value


def _whole(least: int, most: int) -> Callable[[Any, str], Any]:
    def check(value: Any, path: str) -> int:
        if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
            raise _fault(path, f"must be a whole number from {least} to {most}")
        return value

    return check


def _one_of(words: tuple[str, ...]) -> Callable[[Any, str], str]:
    def check(value: Any, path: str) -> str:
        if not isinstance(value, str) or value not in words:
            raise _fault(path, f"must be one of {', '.join(words)}")
        return value

    return check
