"""Bodies of PUT and PATCH: read-only fields dropped, PATCH merged by RFC 7386."""

from __future__ import annotations

from typing import Any, TypeVar

from esb_api.schemas.base import Body
from esb_api.validation import validated

Model = TypeVar("Model", bound=Body)


def replaced(model: type[Model], body: Any) -> Model:
    """A PUT body as `model`. Raises Invalid."""
    return validated(model, without_read_only(model, body))


def merged(model: type[Model], current: dict[str, Any], patch: Any) -> Model:
    """`current` (the writable part as JSON) with `patch` merged in. Null resets a field to its default.

    Raises Invalid. A patch that is no object would by RFC 7386 replace the resource; `operations` refuses it.
    """
    return validated(model, merge_patch(current, without_read_only(model, patch)))


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
