"""The leaf values of an event by dotted path, each with the array elements that it lies in.

A dot in a key of the event and a level of nesting are the same thing, so `a.b` is looked for under `a` and then `b`,
and under `a.b`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any, NamedTuple

from esb_workers.expressions.patterns.compiler import HEADER_ROOTS, normal_path

#: The array elements around a value, outermost first: (which array of the event, index in it).
Membership = tuple[tuple[int, int], ...]

Words = tuple[str, ...]


class Found(NamedTuple):
    """One leaf value of the event."""

    value: Any
    membership: Membership


class Event(dict[str, Any]):
    """An event made ready: its headers stand under `headers`, their names in lower case."""


def ready(event: Mapping[str, Any]) -> Event:
    """`event` made ready, once for all patterns that it is tried on."""
    if isinstance(event, Event):
        return event
    made = Event(event)
    for name, path in _headers(tuple(event)):
        made[path] = _lower(made.pop(name))
    return made


@lru_cache(maxsize=64)
def _headers(names: tuple[str, ...]) -> list[tuple[str, str]]:
    """Which keys of an event are about its headers, each with its path. Messages all have the same keys."""
    return [(name, normal_path(name)) for name in names if name.partition(".")[0] in HEADER_ROOTS]


class Paths:
    """The paths a pattern asks for. Only these are looked up in an event; the rest is never visited."""

    def __init__(self, paths: Iterable[str]) -> None:
        self._root = _Node("", {tuple(path.split(".")): path for path in paths})

    def find(self, event: Event) -> dict[str, list[Found]]:
        """Path → leaf values."""
        found: dict[str, list[Found]] = {}
        _visit(event, self._root, (), found)
        return found


@lru_cache(maxsize=4096)
def paths(wanted: frozenset[str]) -> Paths:
    """The paths of a pattern, shared by all patterns that ask for the same ones."""
    return Paths(wanted)


class _Node:
    """What is wanted below a place: which keys lead on, each to the node below it."""

    __slots__ = ("_rests", "children", "keys", "leaf")

    def __init__(self, leaf: str, rests: Mapping[Words, str]) -> None:
        self.leaf = leaf  # the path that ends here, if one does
        self._rests = rests
        self.keys = {".".join(rest[:length]) for rest in rests for length in range(1, len(rest) + 1)}
        self.children: dict[str, _Node] = {}  # made when an event leads there

    def child(self, key: str) -> _Node:
        found = self.children.get(key)
        if found is None:
            words = tuple(key.split("."))
            below = {rest[len(words) :]: path for rest, path in self._rests.items() if rest[: len(words)] == words}
            found = self.children[key] = _Node(below.pop((), ""), below)
        return found


def _visit(value: Any, node: _Node, membership: Membership, found: dict[str, list[Found]]) -> None:
    if isinstance(value, dict):
        few, many = (node.keys, value) if len(node.keys) <= len(value) else (value, node.keys)
        for key in few:
            if key in many:
                child, below = value[key], node.children.get(key) or node.child(key)
                if isinstance(child, (dict, list)):
                    _visit(child, below, membership, found)
                elif below.leaf:  # most are: not worth a call
                    found.setdefault(below.leaf, []).append(Found(child, membership))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            # A scalar is not pinned to its place: two of one list may serve two fields, as at AWS.
            nested = isinstance(item, (dict, list))
            _visit(item, node, (*membership, (id(value), index)) if nested else membership, found)
    elif node.leaf:
        found.setdefault(node.leaf, []).append(Found(value, membership))


def _lower(value: Any) -> Any:
    """`value` with the keys of all its objects in lower case."""
    if isinstance(value, dict):
        return {name.lower(): child if type(child) is str else _lower(child) for name, child in value.items()}
    return [_lower(item) for item in value] if isinstance(value, list) else value
