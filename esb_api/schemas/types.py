"""The field types that several nouns share. Each raises ValueError with a message that says what is wanted."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Annotated, Any, Final

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    PlainSerializer,
    StringConstraints,
    WithJsonSchema,
)

from esb_workers import clock

NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$"
VISIBLE_PATTERN = r"^[!-~]{1,200}$"

#: Name of a registered resource.
Name = Annotated[str, StringConstraints(pattern=NAME_PATTERN)]
#: 1 to 200 visible ASCII characters: what may go out as an HTTP header as it is.
Visible = Annotated[str, StringConstraints(pattern=VISIBLE_PATTERN)]


def _moment(value: Any) -> Any:
    if isinstance(value, datetime):
        return value
    if not isinstance(value, str):
        raise ValueError("must be an RFC 3339 timestamp")  # noqa: TRY004  pydantic turns only this into a fault
    return clock.from_wire(value)


#: A point in time: any RFC 3339 offset in, UTC with `Z` and milliseconds out.
Moment = Annotated[
    datetime,
    BeforeValidator(_moment),
    PlainSerializer(clock.to_wire, return_type=str, when_used="json-unless-none"),
    WithJsonSchema({"type": "string", "format": "date-time", "examples": ["2026-01-31T08:00:00.000Z"]}),
]


def _split(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    parts = [part.strip() for part in value.split(",")]
    if "" in parts:
        raise ValueError("has an empty entry")
    return parts


#: Marks a query parameter that takes a comma list: `Annotated[list[Status], COMMAS]`.
COMMAS: Final = BeforeValidator(_split)
#: A comma list of any words.
Words = Annotated[list[str], COMMAS]


def checked(check: Callable[[str], object]) -> AfterValidator:
    """Marks a `str` for which `check` must not raise ValueError."""

    def keep(value: str) -> str:
        check(value)
        return value

    return AfterValidator(keep)


def milliseconds(least: int, most: int, description: str = "Milliseconds.") -> Any:
    """Marks a duration in whole milliseconds from `least` to `most`."""
    return Field(ge=least, le=most, description=description)
