"""Field types that several step types share."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import AfterValidator, Field, WithJsonSchema

from esb_workers.clock import from_wire

#: Ten years: long enough for any wait, short enough for every clock.
MAX_MS = 315_360_000_000

Milliseconds = Annotated[int, Field(ge=0, le=MAX_MS)]
PositiveMilliseconds = Annotated[int, Field(ge=1, le=MAX_MS)]
StepId = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")]
NAME = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")]
#: A dotted path in the context.
RESULT_PATH = Annotated[str, Field(pattern=r"^[^.\s$]+(\.[^.\s]+)*$", max_length=200)] | None


def _timestamp_or_template(value: Any) -> Any:
    if isinstance(value, str) and "${" not in value:
        from_wire(value)
    return value


#: An RFC 3339 timestamp, or a template of one.
Moment = Annotated[
    str,
    AfterValidator(_timestamp_or_template),
    WithJsonSchema({"type": "string", "description": "An RFC 3339 timestamp, or a template of one."}),
]


def _milliseconds_or_template(value: Any) -> Any:
    if value is None or (isinstance(value, str) and "${" in value):
        return value
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= MAX_MS:
        raise ValueError(f"must be milliseconds from 0 to {MAX_MS}, or a template of them")
    return value


#: Milliseconds, or a template of them.
Duration = Annotated[
    Any,
    AfterValidator(_milliseconds_or_template),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "integer", "minimum": 0, "maximum": MAX_MS},
                {"type": "string", "pattern": r"\$\{"},
                {"type": "null"},
            ],
            "description": "Milliseconds, or a template of them.",
        }
    ),
]
