"""The three kinds of model: bodies that come in, query parameters, answers that go out."""

from __future__ import annotations

from typing import ClassVar

from pydantic import BaseModel, ConfigDict
from pydantic.alias_generators import to_camel


class Body(BaseModel):
    """A request body or a part of one: camelCase, strict types, unknown fields refused."""

    model_config = ConfigDict(alias_generator=to_camel, extra="forbid", strict=True, frozen=True)

    #: Fields (camelCase) that answers carry and PUT and PATCH bodies may therefore repeat; they are ignored.
    read_only: ClassVar[frozenset[str]] = frozenset()


class Query(BaseModel):
    """Query parameters of one call; each value arrives as text."""

    model_config = ConfigDict(alias_generator=to_camel, extra="forbid", frozen=True)


class Answer(BaseModel):
    """An answer or a part of one. Made in Python by field name, written in camelCase."""

    model_config = ConfigDict(
        alias_generator=to_camel, validate_by_name=True, validate_by_alias=True, serialize_by_alias=True
    )
