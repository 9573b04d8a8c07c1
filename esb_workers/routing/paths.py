"""Dotted paths into JSON (`customer.name`, `lines.0.sku`). Every change makes a copy of what it changes.

Payloads are shared between the deliveries of a message, so nothing here alters what it is given.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from esb_workers.errors import FieldError, Invalid

#: What `get` answers for a path that leads nowhere; null is a value.
MISSING: Any = object()

Words = tuple[str, ...]


class NoPlace(Exception):
    """A path leads through a value that cannot hold what should be put there."""


def parse_path(text: Any, where: str) -> Words:
    """The words of a path. Raises Invalid for an empty path or word."""
    words = tuple(text.split(".")) if isinstance(text, str) else ()
    if not words or not all(words):
        raise Invalid([FieldError(where, "must be a path: words parted by dots, none empty")])
    return words


def get(value: Any, words: Sequence[str]) -> Any:
    """What stands at a path, or MISSING."""
    for word in words:
        if isinstance(value, dict) and word in value:
            value = value[word]
        elif isinstance(value, list) and _index(value, word) is not None:
            value = value[int(word)]
        else:
            return MISSING
    return value


def put(value: Any, words: Sequence[str], new: Any) -> Any:
    """A copy of `value` with `new` at the path; objects on the way are made. Raises NoPlace where none fits."""
    if not words:
        return new
    word, rest = words[0], words[1:]
    if isinstance(value, list):
        index = _index(value, word)
        if index is None:
            raise NoPlace(f"a list has no element {word!r}")
        return [*value[:index], put(value[index], rest, new), *value[index + 1 :]]
    if value is None:
        value = {}
    if not isinstance(value, dict):
        raise NoPlace(f"{word!r} cannot be put into a value that is not an object")
    return {**value, word: put(value.get(word), rest, new)}


def remove(value: Any, words: Sequence[str]) -> Any:
    """A copy of `value` without what stands at the path; `value` itself when there is nothing."""
    if get(value, words) is MISSING:
        return value
    word, rest = words[0], words[1:]
    if isinstance(value, list):
        index = int(word)
        return [*value[:index], *([remove(value[index], rest)] if rest else []), *value[index + 1 :]]
    if rest:
        return {**value, word: remove(value[word], rest)}
    return {key: item for key, item in value.items() if key != word}


def _index(items: list[Any], word: str) -> int | None:
    if word.isascii() and word.isdecimal() and len(word) < 10 and int(word) < len(items):
        return int(word)
    return None
