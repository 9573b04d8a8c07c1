"""Transformations: what a route or destination makes of a payload before it goes out.

A pipeline is one object `{"type": …}` or a list of them, compiled when the route is saved. A type is an entry
point of the group `esb.transformations`: a function `(config, path) -> step` that raises Invalid for a bad
config, where a step is a function of a Form to the next Form. Steps never alter the payload they are given.
"""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, NamedTuple

from esb_workers import plugins
from esb_workers.errors import EsbError, FieldError, Invalid, PayloadInvalid, TransformationError

GROUP = "esb.transformations"
MAX_STEPS = 100
_HERE = "esb_workers.routing.transformations"
BUILT_IN = {
    "template": f"{_HERE}:template",
    "rename": f"{_HERE}:rename",
    "pick": f"{_HERE}:pick",
    "drop": f"{_HERE}:drop",
    "set": f"{_HERE}:set_fields",
    "default": f"{_HERE}:default",
    "headers": f"{_HERE}:headers",
    "validate": f"{_HERE}:validate",
    "enrich": "esb_workers.routing.enrich:enrich",
    "claim_check": "esb_workers.routing.claim_check:claim_check",
}


class Question(NamedTuple):
    """What a step wants to know of a service; `timeout` in milliseconds, None is the service's own."""

    service: str
    method: str
    path: str | None
    payload: Any
    has_payload: bool
    cache_seconds: int
    timeout: int | None


#: Asks a service and gives its answer as JSON. Raises Unanswered.
Ask = Callable[[Question], Any]


class Unanswered(EsbError):
    """A service that a transformation asks did not answer."""

    code = "unanswered"

    def __init__(
        self, detail: str, *, error_class: str, transient: bool = False, held_ms: int | None = None, reason: str = ""
    ) -> None:
        """`held_ms`: it could not even be called, for this `reason`; to be asked again after so long."""
        super().__init__(detail)
        self.error_class, self.transient, self.held_ms, self.reason = error_class, transient, held_ms, reason


@dataclass(frozen=True, slots=True)
class Form:
    """What one step takes and gives: a payload and headers, and the variables that templates see."""

    payload: Any
    headers: Mapping[str, str]
    variables: Mapping[str, Any]
    ask: Ask | None = None  # None: nobody is called here

    @property
    def scope(self) -> Mapping[str, Any]:
        """The variables with `payload` and `headers` as they are after the steps before.

        Of a part of a split message it is `item` that has become something else; `payload` stays what was sent.
        """
        changed = "item" if "item" in self.variables else "payload"
        return ChainMap({changed: self.payload, "headers": dict(self.headers)}, dict(self.variables))

    def with_payload(self, payload: Any) -> Form:
        """This form with another payload."""
        return replace(self, payload=payload)


Step = Callable[[Form], Form]
Compiler = Callable[[Mapping[str, Any], str], Step]


class Pipeline:
    """Compiled transformations in order. Safe to share between threads."""

    def __init__(self, steps: list[tuple[str, Step]]) -> None:
        self._steps = steps
        #: From so many bytes on a receipt goes out instead of the payload.
        self.threshold: int | None = getattr(steps[-1][1], "threshold", None) if steps else None
        #: Services that its steps ask; with any, it is applied where calls are made.
        self.services: frozenset[str] = frozenset(
            service for _, step in steps if isinstance(service := getattr(step, "service", None), str)
        )

    def apply(
        self, payload: Any, headers: Mapping[str, str], variables: Mapping[str, Any], ask: Ask | None = None
    ) -> tuple[Any, dict[str, str]]:
        """Payload and headers after all steps. Raises TransformationError naming step and reason, or Unanswered."""
        form = Form(payload, headers, variables, ask)
        for number, (name, step) in enumerate(self._steps):
            try:
                form = step(form)
            except Unanswered:
                raise
            except EsbError as error:
                kind = PayloadInvalid if isinstance(error, PayloadInvalid) else TransformationError
                raise kind(f"transformation {number} ({name}): {error.detail}") from error
            except Exception as error:  # A plug-in may raise anything; it fails this delivery and no other.
                raise TransformationError(f"transformation {number} ({name}): {error!r}") from error
        return form.payload, dict(form.headers)


def compile_pipeline(value: Any, path: str) -> Pipeline:
    """Compile one transformation or a list of them. Raises Invalid naming each fault."""
    if isinstance(value, list):
        items = [(item, f"{path}[{index}]") for index, item in enumerate(value)]
    else:
        items = [(value, path)]
    if not 1 <= len(items) <= MAX_STEPS:
        raise Invalid([FieldError(path, f"must have from 1 to {MAX_STEPS} transformations")])
    steps: list[tuple[str, Step]] = []
    faults: list[FieldError] = []
    for item, at in items:
        try:
            steps.append(_compile_step(item, at))
        except Invalid as error:
            faults += error.errors
    faults += [
        FieldError(at, "must be the last transformation: what comes after it would not see the payload")
        for (_, at), (name, _) in zip(items[:-1], steps[:-1], strict=False)
        if name == "claim_check"
    ]
    if faults:
        raise Invalid(faults)
    return Pipeline(steps)


def _compile_step(item: Any, path: str) -> tuple[str, Step]:
    if not isinstance(item, dict) or not isinstance(item.get("type"), str):
        raise Invalid([FieldError(path, "must be an object with a type")])
    name = item["type"]
    if name not in transformations():
        known = ", ".join(sorted(transformations()))
        raise Invalid([FieldError(f"{path}.type", f"there is no transformation {name!r}; there are {known}")])
    config = {key: value for key, value in item.items() if key != "type"}
    return name, transformations()[name](config, path)


@lru_cache(maxsize=1)
def transformations() -> dict[str, Compiler]:
    """Every transformation there is, by its type; entry points are read once, at first use."""
    return plugins.load(GROUP, BUILT_IN)
