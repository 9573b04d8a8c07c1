"""The leaf values of an event by dotted path, each with the array elements that it lies in."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import count
from typing import Any

from esb_workers.expressions.patterns.compiler import HEADER_ROOTS

#: The array elements around a value, outermost first: (number of the array in the event, index in it).
Membership = tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True)
class Found:
    """One leaf value of the event."""

    value: Any
    membership: Membership


class Paths:
    """The paths a pattern asks for. Only these are looked up in an event; the rest is never visited."""

    def __init__(self, paths: Iterable[str]) -> None:
        self._leaves = frozenset(paths)
        self._steps = self._leaves | {
            ".".join(words[:length]) for words in (p.split(".") for p in self._leaves) for length in range(len(words))
        }

    def find(self, event: Mapping[str, Any]) -> dict[str, list[Found]]:
        """Path → leaf values. A dot in a key of the event and a level of nesting are the same thing."""
        walk = _Walk(self._leaves, self._steps)
        for name, value in event.items():
            headers = name.partition(".")[0] in HEADER_ROOTS
            walk.visit(value, _header_path(name) if headers else name, (), lower=headers)
        return walk.found


def _header_path(name: str) -> str:
    _, dot, rest = name.partition(".")
    return f"headers{dot}{rest.lower()}"


class _Walk:
    def __init__(self, leaves: frozenset[str], steps: frozenset[str]) -> None:
        self._leaves, self._steps = leaves, steps
        self._arrays = count()
        self.found: dict[str, list[Found]] = {}

    def visit(self, value: Any, path: str, membership: Membership, lower: bool) -> None:
        if path not in self._steps:
            return
        if isinstance(value, dict):
            for name, child in value.items():
                self.visit(child, f"{path}.{name.lower() if lower else name}", membership, lower)
        elif isinstance(value, list):
            self._elements(value, path, membership, lower)
        elif path in self._leaves:
            self.found.setdefault(path, []).append(Found(value, membership))

    def _elements(self, items: list[Any], path: str, membership: Membership, lower: bool) -> None:
        array = next(self._arrays)
        for index, item in enumerate(items):
            # A scalar is not pinned to its place: two of one list may serve two fields, as at AWS.
            nested = isinstance(item, (dict, list))
            self.visit(item, path, (*membership, (array, index)) if nested else membership, lower)
