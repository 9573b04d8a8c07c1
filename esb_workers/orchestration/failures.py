"""How a step can fail: a class that `catch` can name, a message, and what a handler may want to look at."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

#: Classes of the bus itself; a `fail` step may make up others.
TIMEOUT: Final = "Timeout"
SERVICE_UNAVAILABLE: Final = "ServiceUnavailable"
FORBIDDEN: Final = "Forbidden"
ADDRESS_REFUSED: Final = "AddressRefused"
EXPRESSION_ERROR: Final = "ExpressionError"
VALIDATION_ERROR: Final = "ValidationError"
LOOP_LIMIT: Final = "LoopLimit"
TOLERANCE_EXCEEDED: Final = "ToleranceExceeded"
CONTEXT_TOO_LARGE: Final = "ContextTooLarge"
CANCELLED: Final = "Cancelled"
CONCURRENCY_LIMIT: Final = "ConcurrencyLimit"
DELIVERY_FAILED: Final = "DeliveryFailed"
INTERNAL_ERROR: Final = "InternalError"


@dataclass(frozen=True, slots=True)
class Failure:
    """One failure. `retryable`: another attempt may end differently."""

    error_class: str
    message: str
    retryable: bool = False
    retry_after_ms: int | None = None
    details: Mapping[str, Any] = field(default_factory=dict)

    def as_error(self, step: str, attempts: int) -> dict[str, Any]:
        """The `error` that handlers and readers see."""
        return {"class": self.error_class, "message": self.message, "step": step, "attempts": attempts, **self.details}

    @classmethod
    def of(cls, error: Mapping[str, Any], *, retryable: bool = False) -> Failure:
        """The failure that passes an inner step's error on as it is."""
        details = {key: value for key, value in error.items() if key not in ("class", "message")}
        return cls(str(error.get("class")), str(error.get("message")), retryable, None, details)


class StepFailed(Exception):
    """Raised inside a step type to fail its step."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.message)
        self.failure = failure


def catches(wanted: tuple[str, ...], error_class: str) -> bool:
    """Whether a `catch` that names `wanted` takes this class: its name, `*`, or `HttpStatus.4xx` for a group."""
    group = error_class[: len("HttpStatus.4")] + "xx" if error_class.startswith("HttpStatus.") else None
    return any(name in ("*", error_class) or name == group for name in wanted)
