"""The JSON of a definition, as its author writes it: names, types and ranges of the fields every step has."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic.alias_generators import to_camel

from esb_workers.errors import FieldError
from esb_workers.orchestration.steps.fields import RESULT_PATH, Milliseconds, PositiveMilliseconds, StepId

Cel = Annotated[str, Field(min_length=1, max_length=10_000)]
MAX_STEPS = 1000


class Document(BaseModel):
    """camelCase names, no unknown ones, no guessing of types."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, alias_generator=to_camel)


class RetryPolicyDocument(Document):
    """How a failed attempt is repeated; fields left out default singly."""

    max_retries: int = Field(3, ge=0, le=1000, description="Tries after the first.")
    backoff_strategy: Literal["fixed", "linear", "exponential"] = "exponential"
    initial_delay: Milliseconds = 1000
    max_delay: Milliseconds = 60_000
    jitter: float = Field(0.2, ge=0, le=1)
    schedule: list[Milliseconds] = Field(default=[], max_length=100, description="Delays that replace the strategy.")


class CatchDocument(Document):
    """Where errors of some classes go on."""

    errors: list[Annotated[str, Field(min_length=1, max_length=100)]] = Field(min_length=1, max_length=50)
    next: StepId
    result_path: RESULT_PATH = None


class StepDocument(Document):
    """What every step may have; `config` is its type's."""

    id: StepId
    name: str | None = Field(None, max_length=200)
    type: str
    config: dict[str, Any] = {}
    on_success: StepId | None = None
    on_failure: StepId | None = None
    catch: list[CatchDocument] = Field(default=[], max_length=50)
    retry_policy: RetryPolicyDocument | None = None
    timeout: PositiveMilliseconds | None = Field(None, description="Of one attempt.")
    condition: Cel | None = Field(None, description="CEL; false skips the step.")
    compensate: dict[str, Any] | None = None


class CompensationDocument(Document):
    """A step that undoes another; it leads nowhere."""

    id: StepId | None = None
    name: str | None = Field(None, max_length=200)
    type: str
    config: dict[str, Any] = {}
    retry_policy: RetryPolicyDocument | None = None
    timeout: PositiveMilliseconds | None = None


class ErrorHandlingDocument(Document):
    """What holds for steps that do not say otherwise."""

    retry_policy: RetryPolicyDocument | None = None
    on_error: str = Field(
        "fail", min_length=1, max_length=100, description="log-error, fail, continue, compensate, or a step id."
    )
    on_exhausted: Literal["fail", "pause"] = Field(
        "fail", description="pause: a run whose step has used up its retries, and nothing takes the error, is paused."
    )


class ConcurrencyDocument(Document):
    """How many runs may be under way at once; versions of a workflow count together."""

    key: Cel | None = Field(None, description="CEL over the initial context: runs of the same value count together.")
    limit: int = Field(ge=1, le=100_000)
    on_limit: Literal["queue", "reject", "cancel_oldest"] = Field(
        "queue",
        description="What becomes of a start over the limit: it waits, is refused, or takes the oldest's place.",
    )


class DefinitionDocument(Document):
    """A workflow definition; its steps are read one by one, so that each names its own faults."""

    steps: list[Any] = Field(min_length=1, max_length=MAX_STEPS)
    variables: dict[str, Any] = {}
    error_handling: ErrorHandlingDocument = ErrorHandlingDocument()
    timeout: PositiveMilliseconds | None = Field(None, description="Of the whole run, pauses excluded.")
    durability: Literal["strict", "relaxed"] = Field(
        "strict",
        description="relaxed: quick steps are journaled several at a time; a crash may have the last of them repeated.",
    )
    flow: Literal["explicit", "sequential"] = "explicit"
    input_schema: dict[str, Any] | None = None
    output_schema: dict[str, Any] | None = None
    output: Any = None
    concurrency: ConcurrencyDocument | None = None
    rate_per_second: float | None = Field(
        None, gt=0, le=100_000, strict=False, description="Starts a second; what comes sooner waits its turn."
    )


def field_errors(error: ValidationError, prefix: str) -> list[FieldError]:
    """pydantic's findings as paths in the bus's notation."""
    return [FieldError(join(prefix, e["loc"]), _message(e["type"], e["msg"])) for e in error.errors()]


def join(prefix: str, location: Iterable[str | int]) -> str:
    """`definition.steps[2].onSuccess` from its parts."""
    path = prefix
    for part in location:
        path += f"[{part}]" if isinstance(part, int) else f".{part}" if path else str(part)
    return path


def _message(kind: str, message: str) -> str:
    if kind == "extra_forbidden":
        return "is not a known field"
    if kind == "missing":
        return "is required"
    return message.removeprefix("Value error, ")
