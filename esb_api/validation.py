"""Validation faults in the caller's words: pydantic's errors as field errors with camelCase dotted paths."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from esb_workers.errors import FieldError, Invalid

Model = TypeVar("Model", bound=BaseModel)

_MESSAGES: Final = {
    "missing": "is required",
    "extra_forbidden": "is not a field of this object",
    "model_type": "must be an object",
    "dict_type": "must be an object",
}


def validated(model: type[Model], value: Any) -> Model:
    """`value` as `model`. Raises Invalid naming each fault."""
    try:
        return model.model_validate(value)
    except ValidationError as error:
        raise Invalid(field_errors(error, value)) from None


def field_errors(error: ValidationError, value: Any) -> list[FieldError]:
    """One field error for each place; of the branches of a union, each says what it wanted."""
    faults = error.errors(include_url=False, include_context=False, include_input=False)
    return list(dict.fromkeys(FieldError(dotted(_places(fault, value)), _message(fault)) for fault in faults))


def dotted(places: Sequence[str | int]) -> str:
    """`("steps", 2, "config")` → `steps[2].config`; the whole body is the empty path."""
    path = ""
    for place in places:
        path += f"[{place}]" if isinstance(place, int) else f".{place}" if path else place
    return path


def _message(fault: ErrorDetails) -> str:
    text = _MESSAGES.get(fault["type"]) or fault["msg"].removeprefix("Value error, ").removeprefix("Input ")
    return text[:1].lower() + text[1:]


def _places(fault: ErrorDetails, value: Any) -> list[str | int]:
    """Where the fault lies, without what pydantic adds of its own: the names of union branches.

    What is not in the sent value is such a name, but for the last place of a field that is missing.
    """
    places: list[str | int] = []
    missing = fault["loc"][-1:] if fault["type"] == "missing" else ()
    for place in fault["loc"]:
        if isinstance(value, dict):
            if place not in value and place not in missing:
                continue
            value = value.get(place)
        elif isinstance(value, list) and isinstance(place, int) and place < len(value):
            value = value[place]
        else:
            continue
        places.append(place)
    return places
