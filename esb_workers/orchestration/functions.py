"""Steps written as functions, in a package of a team's own.

    @step("resize-image", queue="images", timeout=600)
    def resize(image: str, width: int = 100, *, context: StepContext) -> dict[str, str]: …

The function's parameters are the step's `config`, and their annotations its schema; what it answers is the step's
output. Named in the entry points of the group `esb.step_types`, it is a step type. With a `queue` it runs only in
workers of that queue (`esb worker orchestration --queue images`); the rest of the bus needs no code of it.
"""

from __future__ import annotations

import inspect
import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, TypeVar, get_type_hints

from pydantic import BaseModel, ConfigDict, ValidationError, create_model
from pydantic_core import to_jsonable_python

from esb_workers.orchestration.failures import TIMEOUT, VALIDATION_ERROR, Failure
from esb_workers.orchestration.steps.base import Call, Completed, Failed, Outcome
from esb_workers.orchestration.steps.schema import SchemaStep

log = logging.getLogger("esb.orchestration")

F = TypeVar("F", bound=Callable[..., Any])

#: The parameter that is given the context of the attempt.
CONTEXT: Final = "context"
#: How long an attempt may take where neither the step nor the decorator says, seconds.
DEFAULT_TIMEOUT: Final = 60.0


@dataclass(frozen=True, slots=True)
class StepContext:
    """What a function may want to know of its attempt."""

    execution_id: str
    path: str
    attempt: int
    #: The same over retries and crashes: hand it on to whatever must not be done twice.
    idempotency_key: str
    correlation_id: str
    traceparent: str | None


class StepError(Exception):
    """Raised by a function to fail its step with an error of this class, which `catch` can name."""

    def __init__(
        self, error_class: str, message: str = "", *, retryable: bool = False, retry_after: float | None = None
    ) -> None:
        super().__init__(message or error_class)
        self.failure = Failure(
            error_class, message, retryable, None if retry_after is None else round(retry_after * 1000)
        )


class FunctionStep(SchemaStep):
    """A step type that is a function."""

    def __init__(self, name: str, function: Callable[..., Any], queue: str | None, timeout: float) -> None:
        self._function = function
        self._model = _model(name, function)
        self._wants_context = CONTEXT in inspect.signature(function).parameters
        self.longest = round(timeout * 1000)
        super().__init__(name, self._model.model_json_schema(), queue)

    def run(self, call: Call) -> Outcome:
        try:
            given = self._model.model_validate(call.input)
        except ValidationError as error:
            return Failed(Failure(VALIDATION_ERROR, f"config: {error.errors()[0]['loc']} {error.errors()[0]['msg']}"))
        arguments = {name: getattr(given, name) for name in type(given).model_fields}
        if self._wants_context:
            arguments[CONTEXT] = StepContext(
                call.execution_id, call.path, call.attempt, call.idempotency_key,
                call.world.correlation_id, call.world.traceparent,
            )  # fmt: skip
        return self._within(call, call.step.timeout or self.longest, arguments)

    def _within(self, call: Call, timeout_ms: int, arguments: dict[str, Any]) -> Outcome:
        """A thread cannot be ended from outside: one that is late goes on, and nobody looks at what it answers."""
        found: list[Outcome] = []

        def work() -> None:
            found.append(self._outcome(call, arguments))

        thread = threading.Thread(target=work, name=f"step-{self.name}", daemon=True)
        thread.start()
        thread.join(timeout_ms / 1000)
        return found[0] if found else Failed(Failure(TIMEOUT, f"no result in {timeout_ms} ms", retryable=True))

    def _outcome(self, call: Call, arguments: dict[str, Any]) -> Outcome:
        try:
            output = to_jsonable_python(self._function(**arguments))
        except StepError as error:
            return Failed(error.failure)
        except (
            Exception
        ) as error:  # whatever it is, it is the step's: its class can be caught, its policy says the rest
            log.warning("step %s raised %s", call.path, type(error).__name__, exc_info=True)
            return Failed(Failure(type(error).__name__, str(error), retryable=True))
        at = call.config.result_path
        return Completed(output, merge=at is None and isinstance(output, dict), at=at)


def step(name: str, *, queue: str | None = None, timeout: float = DEFAULT_TIMEOUT) -> Callable[[F], F]:
    """Make a function a step type of this name. `timeout`: seconds of one attempt, where the step names none.

    The function stays what it is, and can be called in a test of its own. Raises TypeError for a parameter that a
    `config` cannot fill.
    """

    def declare(function: F) -> F:
        function.step_type = lambda: FunctionStep(name, function, queue, timeout)  # type: ignore[attr-defined]
        _model(name, function)
        return function

    return declare


def _model(name: str, function: Callable[..., Any]) -> type[BaseModel]:
    hints = get_type_hints(function, include_extras=True)
    fields: dict[str, Any] = {}
    for parameter in inspect.signature(function).parameters.values():
        if parameter.name == CONTEXT:
            continue
        if parameter.kind in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL, parameter.POSITIONAL_ONLY):
            raise TypeError(f"{name}: the parameter {parameter.name} has no name in a config")
        default = ... if parameter.default is parameter.empty else parameter.default
        fields[parameter.name] = (hints.get(parameter.name, Any), default)
    return create_model(f"{name}.config", __config__=ConfigDict(extra="forbid"), **fields)
