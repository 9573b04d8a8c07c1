"""The body of a request that has been verified: JSON, or a form."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final
from urllib.parse import parse_qsl

from esb_workers.errors import Malformed, UnsupportedMediaType

JSON: Final = "application/json"
FORM: Final = "application/x-www-form-urlencoded"
_MOST_FIELDS: Final = 1000

Loads = Callable[[bytes], Any]


def read_body(raw: bytes, content_type: str | None, json_field: str | None, loads: Loads) -> Any:
    """What the body says; null for none. `loads` reads JSON strictly and raises Malformed.

    A form is an object by name, a repeated name a list; of a form with `json_field` the body is what that field
    holds, as JSON. Raises Malformed, UnsupportedMediaType.
    """
    media = (content_type or "").partition(";")[0].strip().lower()
    if not raw and not media:
        return None
    if media == JSON or media.endswith("+json"):
        return loads(raw)
    if media != FORM:
        raise UnsupportedMediaType(f"The body must be {JSON} or {FORM}.")
    form = _form(raw)
    if json_field is None or json_field not in form:
        return form
    field = form[json_field]
    if not isinstance(field, str):
        raise Malformed(f"The form's field {json_field} is given more than once.")
    return loads(field.encode())


def _form(raw: bytes) -> dict[str, str | list[str]]:
    try:
        pairs = parse_qsl(raw.decode("utf-8"), keep_blank_values=True, errors="strict", max_num_fields=_MOST_FIELDS)
    except ValueError:  # also what is not UTF-8
        raise Malformed(f"The body is not a form in UTF-8 of at most {_MOST_FIELDS} fields.") from None
    form: dict[str, str | list[str]] = {}
    for name, value in pairs:
        if "\0" in name + value:
            raise Malformed("The body contains a NUL character.")
        before = form.get(name)
        form[name] = value if before is None else [*([before] if isinstance(before, str) else before), value]
    return form
