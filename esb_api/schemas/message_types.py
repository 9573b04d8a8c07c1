"""The catalogue: message types, and the JSON Schemas of what is sent of them."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from esb_api.params import PageQuery
from esb_api.schemas.base import Answer, Body
from esb_api.schemas.messages import MessageType
from esb_api.schemas.problem import FieldProblem
from esb_api.schemas.types import COMMAS, Moment, Words

Mode = Literal["off", "warn", "enforce"]
Compatibility = Literal["backward", "forward", "full", "none"]

_SCHEMA = Field(
    alias="schema",
    description="JSON Schema 2020-12 of the payload. Patterns run on re2; references stay within the document.",
    json_schema_extra={"type": ["object", "boolean"]},
)
_VERSION = Field(ge=1, le=1_000_000_000)
_COMPATIBILITY = Field(
    description="What a new version may not break: `backward` senders, `forward` readers, `full` both, `none` nothing."
)


class MessageTypeBody(Body):
    """A message type as people write it."""

    read_only: ClassVar[frozenset[str]] = frozenset(("id", "version", "latestVersion", "createdAt", "updatedAt"))

    name: MessageType
    schema_: Annotated[Any, _SCHEMA]
    mode: Annotated[
        Mode, Field(description="`off`: not looked at. `warn`: accepted and noted. `enforce`: refused with 422.")
    ] = "warn"
    compatibility: Annotated[Compatibility, _COMPATIBILITY] = "backward"
    description: Annotated[str | None, Field(max_length=1000)] = None
    active_version: Annotated[int | None, _VERSION, Field(description="The version that counts; null: the newest.")] = (
        None
    )
    metadata: dict[str, Any] = {}


class VersionBody(Body):
    """A further version of a type's schema."""

    schema_: Annotated[Any, _SCHEMA]
    description: Annotated[str | None, Field(max_length=1000)] = None


class CompatibilityBody(Body):
    """A schema to be compared with the newest version."""

    schema_: Annotated[Any, _SCHEMA]
    compatibility: Annotated[Compatibility | None, Field(description="Default: the type's own.")] = None


class PayloadBody(Body):
    """A payload to be tried."""

    payload: Any
    version: Annotated[int | None, _VERSION, Field(description="Default: the one that counts.")] = None


class MessageTypeQuery(PageQuery):
    """Filters of the catalogue."""

    name: Words | None = None
    mode: Annotated[list[Mode], COMMAS] | None = None


# --- answers ---------------------------------------------------------------------------------------------


class MessageTypeAnswer(Answer):
    """A message type with the schema that counts."""

    id: str
    name: str
    schema_: Annotated[Any, Field(alias="schema")]
    mode: Mode
    compatibility: Compatibility
    description: str | None
    version: Annotated[int, Field(description="Of the schema shown: the one that counts.")]
    latest_version: int
    active_version: int | None
    metadata: dict[str, Any]
    created_at: Moment
    updated_at: Moment


class MessageTypePage(Answer):
    """Message types, newest first."""

    items: list[MessageTypeAnswer]
    next_cursor: str | None


class VersionAnswer(Answer):
    """A version of a type's schema."""

    version: int
    schema_: Annotated[Any, Field(alias="schema")]
    description: str | None
    created_by: str
    created_at: Moment


class VersionPage(Answer):
    """Versions, newest first."""

    items: list[VersionAnswer]
    next_cursor: str | None


class ChangeAnswer(Answer):
    """One difference between two schemas."""

    path: Annotated[str, Field(description="Where in the payload; `[]` is every item of a list.")]
    message: str
    breaks: Annotated[
        list[Literal["backward", "forward"]], Field(description="Senders, readers, both, or nobody (empty).")
    ]


class CompatibilityAnswer(Answer):
    """What a schema would change, and whether the type takes it."""

    compatible: bool
    compatibility: Annotated[Compatibility, Field(description="The rule that was applied.")]
    compared_with: Annotated[int, Field(description="The version it was compared with: the newest.")]
    changes: list[ChangeAnswer]
    breaking: Annotated[list[ChangeAnswer], Field(description="Those of the changes that the rule forbids.")]


class PayloadAnswer(Answer):
    """Whether a payload fits."""

    valid: bool
    version: int
    errors: list[FieldProblem]
