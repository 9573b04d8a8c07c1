"""Bodies of PUT and PATCH: read-only fields dropped, PATCH merged by RFC 7386."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, TypeVar, get_args

from pydantic import BaseModel

from esb_api.schemas.base import Body
from esb_api.validation import dotted, validated
from esb_workers.errors import FieldError, Invalid

Model = TypeVar("Model", bound=Body)


def replaced(model: type[Model], body: Any) -> Model:
    """A PUT body as `model`. Raises Invalid."""
    return validated(model, without_read_only(model, body))


def merged(model: type[Model], current: dict[str, Any], patch: Any) -> Model:
    """`current` (the writable part as JSON) with `patch` merged in. Null resets a field to its default.

    Raises Invalid. A patch that is no object would by RFC 7386 replace the resource; `operations` refuses it.
    """
    patch = without_read_only(model, patch)
    refuse_unknown_nulls(model, patch)
    return validated(model, merge_patch(current, patch))


def refuse_unknown_nulls(model: type[BaseModel], patch: dict[str, Any]) -> None:
    """Raises Invalid for unknown fields that are null: merging takes them away, and validation would not see them."""
    strangers = list(_unknown_nulls(model, patch, ()))
    if strangers:
        raise Invalid([FieldError(dotted(place), "is not a field of this object") for place in strangers])


def _unknown_nulls(model: type[BaseModel], patch: dict[str, Any], place: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    fields = {field.alias or name: field for name, field in model.model_fields.items()}
    for key, value in patch.items():
        if key not in fields:
            if value is None:
                yield (*place, key)
        elif isinstance(value, dict) and (inner := _object_in(fields[key].annotation)):
            yield from _unknown_nulls(inner, value, (*place, key))


def _object_in(annotation: Any) -> type[BaseModel] | None:
    """The model in `Model` or `Model | None`; none where the value is of another kind, or may hold any field."""
    candidates = [part for part in (annotation, *get_args(annotation)) if isinstance(part, type)]
    models = [part for part in candidates if issubclass(part, BaseModel)]
    return models[0] if len(models) == 1 and models[0].model_config.get("extra") == "forbid" else None


def merge_patch(target: Any, patch: Any) -> Any:
    """RFC 7386, without changing either argument."""
    if not isinstance(patch, dict):
        return patch
    result = dict(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        else:
            result[key] = merge_patch(result.get(key), value)
    return result


def without_read_only(model: type[Body], body: Any) -> Any:
    """`body` without the fields that only answers carry."""
    if not isinstance(body, dict):
        return body
    return {key: value for key, value in body.items() if key not in model.read_only}
