"""JSON as the bus takes it, from callers and off queues: strict only.

Refused as malformed (400), with the position where there is one: anything RFC 8259 does not allow, NaN and
Infinity (also by overflow: `1e400`), `\\u0000` (PostgreSQL cannot store it), lone surrogates and bad UTF-8,
duplicate keys, integers outside 64 bits, nesting over 64. What passes can be stored, and goes out equal.

`jiter` parses: it is the one fast parser that sees duplicate keys. What it lets through is found in the bytes, by
what runs at the speed of memory: a batch has thousands of values, and to walk them costs more than to parse them.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import jiter

from esb_workers.errors import Malformed

MAX_DEPTH: Final = 64
_INT64: Final = range(-(1 << 63), 1 << 63)
#: Makes all digits one digit, and both marks of an exponent one.
_ONE_DIGIT: Final = bytes.maketrans(b"123456789E", b"000000000e")
#: A number that may leave 64 bits or overflow a double: 19 digits in a row, or a three-digit exponent.
_BIG_NUMBERS: Final = (b"0" * 19, b"e000", b"e+000")
#: Makes objects look like arrays.
_AS_ARRAYS: Final = bytes.maketrans(b"{}", b"[]")
_NO_MARKS: Final = bytes(set(range(256)) - set(b'[]{}"'))


def parse_json(raw: bytes) -> Any:
    """The value in `raw`. Raises Malformed."""
    try:
        value = jiter.from_json(raw, allow_inf_nan=False, catch_duplicate_keys=True, cache_mode="keys")
    except ValueError as error:
        raise Malformed(f"The body is not valid JSON: {error}.", code="malformed_json") from None
    if raw.count(b"[") + raw.count(b"{") > MAX_DEPTH:
        _check_depth(raw)
    # Of two backslashes the second stands for itself.
    if b"\\u0000" in raw and b"\\u0000" in raw.replace(rb"\\", b""):
        raise Malformed("The body contains \\u0000.", code="malformed_json")
    if _may_be_big(raw) and _may_be_big(_without_strings(raw)):
        _check_numbers(value)
    return value


def _check_depth(raw: bytes) -> None:
    """`raw` is known to be JSON. What is innermost is taken away, until nothing is left."""
    # Text without brackets goes first; what that leaves is still bracket outside, or text inside, of quotes.
    marks = _without_escapes(raw).translate(_AS_ARRAYS, _NO_MARKS).replace(b'""', b"")
    nesting = b"".join(marks.split(b'"')[::2])
    for _ in range(MAX_DEPTH):
        nesting = nesting.replace(b"[]", b"")
        if not nesting:
            return
    raise Malformed(f"The body is nested deeper than {MAX_DEPTH} levels.", code="malformed_json")


def _without_strings(raw: bytes) -> bytes:
    return b"".join(_without_escapes(raw).split(b'"')[::2])


def _without_escapes(raw: bytes) -> bytes:
    """Every quote that is left begins or ends a string."""
    return raw.replace(rb"\\", b"").replace(rb"\"", b"") if b"\\" in raw else raw


def _may_be_big(raw: bytes) -> bool:
    alike = raw.translate(_ONE_DIGIT)
    return any(number in alike for number in _BIG_NUMBERS)


def _check_numbers(value: Any) -> None:
    waiting = [value]
    while waiting:
        item = waiting.pop()
        if isinstance(item, float):
            if item in (float("inf"), float("-inf")):
                raise Malformed("The body contains a number too large for a double.", code="malformed_json")
        elif isinstance(item, int):
            if item not in _INT64:
                raise Malformed("The body contains an integer outside 64 bits.", code="malformed_json")
        else:
            waiting.extend(_children(item))


def _children(value: Any) -> Iterator[Any]:
    if isinstance(value, dict):
        yield from value.values()
    elif isinstance(value, list):
        yield from value
