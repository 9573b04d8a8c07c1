"""Lookup tables on the wire."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

from pydantic import Field

from esb_api.params import PageQuery
from esb_api.schemas.base import Answer, Body
from esb_api.schemas.types import Moment, Name, Words


class LookupTableBody(Body):
    """What `lookup(table, key)` finds."""

    read_only: ClassVar[frozenset[str]] = frozenset({"id", "createdAt", "updatedAt"})

    name: Annotated[Name, Field(description="What expressions call it; there, case counts.")]
    description: Annotated[str | None, Field(max_length=1000)] = None
    entries: Annotated[dict[str, Any], Field(description="Key to any JSON; up to 10,000 of up to 64 KiB each.")]


class LookupTableAnswer(Answer):
    """A lookup table."""

    id: str
    name: str
    description: str | None
    entries: dict[str, Any]
    created_at: Moment
    updated_at: Moment


class LookupTablePage(Answer):
    """Lookup tables, newest first."""

    items: list[LookupTableAnswer]
    next_cursor: str | None


class LookupTableQuery(PageQuery):
    """Filters of the list of lookup tables."""

    name: Words | None = None
