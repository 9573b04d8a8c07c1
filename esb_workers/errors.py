"""The one tree of errors the bus raises on purpose.

Each class has a stable `code` that callers may build on. A border (the REST API, the command line, a
worker's record of an attempt) translates an error of this tree exactly once; anything outside the tree is
a defect and is logged with its stack.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, NamedTuple


class FieldError(NamedTuple):
    """One fault in what a caller sent: where (`healthCheck.interval`, `steps[2].config`) and what."""

    path: str
    message: str


class EsbError(Exception):
    """Something went wrong in the bus."""

    code: ClassVar[str] = "error"

    def __init__(self, detail: str | None = None, *, code: str | None = None, **extra: Any) -> None:
        self.detail = detail or (type(self).__doc__ or "").strip().splitlines()[0]
        self.specific_code = code or type(self).code
        self.extra = extra
        super().__init__(self.detail)

    def __reduce__(self) -> Any:
        # Exceptions are rebuilt by `cls(*args)` when pickled; keyword state would be lost without this.
        return (_rebuild, (type(self), self.__dict__))


def _rebuild(cls: type[EsbError], state: dict[str, Any]) -> EsbError:
    error = cls.__new__(cls)
    error.__dict__.update(state)
    error.args = (state.get("detail"),)
    return error


class SettingsError(EsbError):
    """A setting is wrong."""

    code = "settings_invalid"


class SchemaMismatch(EsbError):
    """The database's schema is not one this code can work with."""

    code = "schema_mismatch"


# --- what a caller did wrong -------------------------------------------------------------------------


class Malformed(EsbError):
    """The request cannot be read."""

    code = "malformed"


class Unauthenticated(EsbError):
    """A valid API key is needed."""

    code = "unauthenticated"


class Forbidden(EsbError):
    """This key does not have the right."""

    code = "forbidden"


class NotFound(EsbError):
    """There is no such resource."""

    code = "not_found"


class Conflict(EsbError):
    """The request contradicts what is stored."""

    code = "conflict"


class IllegalTransition(Conflict):
    """The resource's state does not allow this."""

    code = "illegal_transition"


class PreconditionFailed(EsbError):
    """The resource has changed since it was read."""

    code = "precondition_failed"


class TooLarge(EsbError):
    """The body is over the limit."""

    code = "too_large"


class UnsupportedMediaType(EsbError):
    """The body's media type is not one this call takes."""

    code = "unsupported_media_type"


class QuotaExceeded(EsbError):
    """The client's quota is used up."""

    code = "quota_exceeded"

    def __init__(self, detail: str | None = None, *, retry_after: int, **extra: Any) -> None:
        super().__init__(detail, **extra)
        self.retry_after = retry_after  # seconds


class Invalid(EsbError):
    """What was sent breaks a rule."""

    code = "invalid"

    def __init__(
        self, errors: Sequence[FieldError] = (), detail: str | None = None, *, code: str | None = None
    ) -> None:
        self.errors = list(errors)
        super().__init__(detail or "; ".join(f"{e.path}: {e.message}" for e in self.errors) or None, code=code)


class ExpressionError(EsbError):
    """An expression could not be evaluated."""

    code = "expression_error"


class TransformationError(EsbError):
    """A transformation failed on this message."""

    code = "transformation_failed"
    error_class = "TransformationError"  # of the delivery that it ends


class PayloadInvalid(TransformationError):
    """`validate` turned the payload down."""

    error_class = "ValidationError"


# --- what the surroundings did wrong -----------------------------------------------------------------


class Unavailable(EsbError):
    """A server the bus needs is away for the moment."""

    code = "unavailable"
    retry_after = 2  # seconds


class Overloaded(Unavailable):
    """The bus takes no more for the moment."""

    code = "overloaded"

    def __init__(self, detail: str | None = None, *, retry_after: int, **extra: Any) -> None:
        super().__init__(detail, **extra)
        self.retry_after = retry_after  # seconds


class Superseded(EsbError):
    """Another worker has taken this work over; the result is dropped."""

    code = "superseded"


class WorkerDeclaredDead(EsbError):
    """This process missed its heartbeat and was declared dead; it must register anew."""

    code = "worker_dead"
