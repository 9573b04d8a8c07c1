"""Query parameters: each known, given once, and of the right form; anything else is 422 with its name."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, TypeVar

from pydantic import BeforeValidator, Field
from werkzeug.datastructures import MultiDict

from esb_api.schemas.base import Query
from esb_api.validation import validated
from esb_workers.errors import FieldError, Invalid

DEFAULT_LIMIT = 50
MAX_LIMIT = 200

Model = TypeVar("Model", bound=Query)


def _digits(value: Any) -> Any:
    # int() would also take "+5", " 5", "5_0" and digits of other scripts.
    if isinstance(value, str) and not (value.isascii() and value.isdigit() and len(value) <= 18):
        raise ValueError("must be a whole number")
    return value


#: A whole number in a query parameter.
Count = Annotated[int, BeforeValidator(_digits)]


class PageQuery(Query):
    """The parameters of every list."""

    limit: Annotated[Count, Field(ge=1, le=MAX_LIMIT, description="Entries on a page.")] = DEFAULT_LIMIT
    cursor: Annotated[str | None, Field(description="`nextCursor` of the page before.")] = None


def either(wanted: Sequence[str] | None) -> bool | None:
    """What a filter that takes `true` and `false` asks for; None where it takes both, or is not given."""
    values = set(wanted or ())
    return values == {"true"} if len(values) == 1 else None


class AnyQuery(Query):
    """Of a call whose query parameters are its caller's own: the view reads them itself."""


class NoQuery(Query):
    """A call without query parameters."""


def read_query(model: type[Model], args: MultiDict[str, str]) -> Model:
    """The query string as `model`. Raises Invalid."""
    if not args:
        return validated(model, {})
    faults = [FieldError(name, "is given more than once") for name, values in args.lists() if len(values) > 1]
    faults += [FieldError(name, "contains a NUL character") for name, value in args.items() if "\0" in name + value]
    if faults:
        raise Invalid(faults)
    return validated(model, args.to_dict())
