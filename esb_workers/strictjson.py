"""JSON as the bus takes it, from callers and off queues: strict only.

Refused as malformed (400), with the position where there is one: anything RFC 8259 does not allow, NaN and
Infinity (also by overflow: `1e400`), `\\u0000` (PostgreSQL cannot store it), lone surrogates and bad UTF-8,
duplicate keys, integers outside 64 bits, nesting over 64. What passes can be stored, and goes out equal.

`jiter` parses: it is the one fast parser that sees duplicate keys. What it lets through is rare, so a scan of
the bytes decides whether the values have to be walked at all.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any, Final

import jiter

from esb_workers.errors import Malformed

MAX_DEPTH: Final = 64
_INT64: Final = range(-(1 << 63), 1 << 63)
#: A number that may leave 64 bits or overflow a double: 19 digits in a row, or a three-digit exponent.
_BIG_NUMBER: Final = re.compile(rb"[0-9]{19}|[eE]\+?[0-9]{3}")


def parse_json(raw: bytes) -> Any:
    """The value in `raw`. Raises Malformed."""
    try:
        value = jiter.from_json(raw, allow_inf_nan=False, catch_duplicate_keys=True, cache_mode="keys")
    except ValueError as error:
        raise Malformed(f"The body is not valid JSON: {error}.", code="malformed_json") from None
    if raw.count(b"[") + raw.count(b"{") > MAX_DEPTH:
        _check_depth(value)
    if b"\\u0000" in raw or _BIG_NUMBER.search(raw):
        _check_values(value)
    return value


def _check_depth(value: Any) -> None:
    level = _containers([value])
    for _ in range(MAX_DEPTH):
        level = _containers(child for parent in level for child in _children(parent))
        if not level:
            return
    raise Malformed(f"The body is nested deeper than {MAX_DEPTH} levels.", code="malformed_json")


def _containers(values: Iterable[Any]) -> list[Any]:
    return [value for value in values if isinstance(value, dict | list)]


def _check_values(value: Any) -> None:
    waiting = [value]
    while waiting:
        item = waiting.pop()
        if isinstance(item, str):
            if "\0" in item:
                raise Malformed("The body contains \\u0000.", code="malformed_json")
        elif isinstance(item, float):
            if item in (float("inf"), float("-inf")):
                raise Malformed("The body contains a number too large for a double.", code="malformed_json")
        elif isinstance(item, int):
            if item not in _INT64:
                raise Malformed("The body contains an integer outside 64 bits.", code="malformed_json")
        else:
            waiting.extend(_children(item))
            if isinstance(item, dict):
                waiting.extend(item)


def _children(value: Any) -> Iterator[Any]:
    if isinstance(value, dict):
        yield from value.values()
    elif isinstance(value, list):
        yield from value
