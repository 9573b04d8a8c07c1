"""What a value must be, or begin with, for a leaf to accept it: by this, patterns are found without being asked.

A key is necessary, never sufficient: whoever finds a pattern by its keys still asks it.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

from esb_workers.expressions.patterns.values import comparable, fold, is_number, parse_address, wildcard_pieces

SAME: Final = "same"  # the value itself, in the form of `form_of`
ADDRESS: Final = "address"  # an IP address, however it is written
FOLDED: Final = "folded"  # text without its case
STARTS: Final = "starts"  # text that begins with this


class Key(NamedTuple):
    """One thing that a value may be."""

    kind: str
    value: Any


def form_of(value: Any) -> Any:
    """A value such that equal ones, as literals see them, are equal and hash alike: 5 and 5.0, not 1 and true."""
    if isinstance(value, str):
        return value
    if is_number(value):
        millionths = comparable(value)
        return ("number", repr(value)) if millionths is None else ("number", millionths)
    return ("constant", value)


def keys_of(items: list[Any]) -> tuple[Key, ...] | None:
    """The keys of which a value has one if a valid leaf accepts it; None where that cannot be said."""
    found: list[Key] = []
    for item in items:
        keys = _keys(item)
        if keys is None:
            return None
        found += keys
    return tuple(dict.fromkeys(found))


def _keys(item: Any) -> list[Key] | None:
    if not isinstance(item, dict):
        address = parse_address(item) if isinstance(item, str) else None
        return [Key(SAME, form_of(item)) if address is None else Key(ADDRESS, address)]
    name, argument = next(iter(item.items()))
    if name == "exactly":
        return [Key(SAME, argument)]
    if name == "equals-ignore-case":
        return [Key(FOLDED, fold(argument))]
    if name == "prefix" and isinstance(argument, str):
        return [Key(STARTS, argument)] if argument else None
    if name == "wildcard":
        return _wildcard_keys(argument)
    if name == "numeric" and argument[0] == "=":
        return [Key(SAME, form_of(argument[1]))]
    if name == "all":
        return next((keys for keys in map(_keys, argument) if keys is not None), None)
    return None


def _wildcard_keys(pattern: str) -> list[Key] | None:
    pieces = wildcard_pieces(pattern)
    if len(pieces) == 1:
        return [Key(SAME, pieces[0])]
    return [Key(STARTS, pieces[0])] if pieces[0] else None
