"""What CloudEvents 1.0 asks of an event's context attributes. Pure.

https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/spec.md#context-attributes
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from esb_workers.clock import from_wire
from esb_workers.errors import FieldError

REQUIRED: Final = ("specversion", "id", "source", "type")
#: Attributes of the specification, all of them strings.
_STRINGS: Final = frozenset({*REQUIRED, "datacontenttype", "dataschema", "subject", "time"})
#: Those that must not be empty where they are. (An extension of one's own may be.)
_NOT_EMPTY: Final = frozenset({"datacontenttype", "dataschema", "subject", "time", "dataref", "partitionkey"})
_INTEGERS: Final = range(-(2**31), 2**31)

_NAME = re.compile(r"[a-z0-9]+")
_URI = re.compile(r"[A-Za-z][A-Za-z0-9+.\-]*:[A-Za-z0-9\-._~:/?#\[\]@!$&'()*+,;=%]*")
_MEDIA_TYPE = re.compile(r"[\w!#$&^.+\-]+/[\w!#$&^.+\-]+\s*(;.*)?", re.ASCII)
# Controls, surrogates, and what Unicode calls no character: U+FDD0 to U+FDEF, the last two of each plane.
_LAST_OF_PLANES = "".join(chr(plane << 16 | 0xFFFE) + chr(plane << 16 | 0xFFFF) for plane in range(17))
_FORBIDDEN = re.compile(f"[\x00-\x1f\x7f-\x9f\ud800-\udfff\ufdd0-\ufdef{_LAST_OF_PLANES}]")
_LEAP_SECOND = re.compile(r":60(?=[.Zz+\-])")
TRACEPARENT: Final = re.compile(r"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")
"""A W3C trace context that names a trace and a span; others are to be ignored (§3.2.2.5 of the recommendation)."""


def as_text(name: str, value: Any) -> str:
    """An attribute of the JSON format as its canonical text. Raises ValueError for types that none has."""
    if isinstance(value, str):
        return value
    if name in _STRINGS:
        raise ValueError("must be a string")
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int) and value in _INTEGERS:
        return str(value)
    raise ValueError("must be a string, a boolean or an integer of 32 bits")


def faults(attributes: Mapping[str, str], prefix: str = "") -> list[FieldError]:
    """Everything that is wrong, by the attribute's name after `prefix`."""
    found = [FieldError(prefix + name, "is required") for name in REQUIRED if not attributes.get(name)]
    for name, value in attributes.items():
        told = _fault(name, value)
        if told is not None:
            found.append(FieldError(prefix + name, told))
    return found


def _fault(name: str, value: str) -> str | None:
    if not _NAME.fullmatch(name) or name == "data":
        return "attribute names are lower-case letters and digits, and not `data`"
    if name in _NOT_EMPTY and not value:
        return "must not be empty"
    if forbidden := _FORBIDDEN.search(value):
        return f"must not hold U+{ord(forbidden.group()):04X}"
    if name == "specversion" and value not in ("", "1.0"):
        return "must be 1.0"
    if name == "dataschema" and not _URI.fullmatch(value):
        return "must be a URI"
    if name == "datacontenttype" and not _MEDIA_TYPE.fullmatch(value):
        return "must be a media type, such as application/json"
    return _time_fault(value) if name == "time" else None


def _time_fault(value: str) -> str | None:
    try:
        from_wire(_LEAP_SECOND.sub(":59", value))
    except ValueError as error:
        return str(error)
    return None
