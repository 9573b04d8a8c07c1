"""Many conditions at once: which of them an event can match, without asking each.

Every alternative of a pattern is filed under one of its paths, by what a value there must be or begin with, and of
several paths under that which tells it best from those filed before. An event is looked up by the values it has, so
the cost is that of the event, not of what is filed. What no key describes is always among the candidates.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any, Generic, TypeVar

from esb_workers.expressions.patterns.access import ADDRESS, FOLDED, SAME, STARTS, Key, form_of
from esb_workers.expressions.patterns.conditions import Access
from esb_workers.expressions.patterns.events import ready
from esb_workers.expressions.patterns.values import fold, parse_address

T = TypeVar("T")

_NOTHING: dict[Any, Any] = {}


class ConditionIndex(Generic[T]):
    """Values filed under their conditions. May be changed at any time, but not while another thread reads it."""

    def __init__(self) -> None:
        self._always: dict[T, None] = {}
        self._paths: dict[str, _Path[T]] = {}
        self._steps: Counter[str] = Counter()
        self._places: dict[T, list[tuple[str, Key]]] = {}

    def __len__(self) -> int:
        return len(self._places)

    def add(self, value: T, access: Iterable[Access]) -> None:
        """File `value`; `access` has what each alternative of its conditions needs, nothing if that is not known."""
        places: list[tuple[str, Key]] = []
        alternatives = list(access)
        if not all(alternatives):
            self._always[value] = None  # one of them may hold whatever the event is
        else:
            for needs in alternatives:
                path, keys = min(needs.items(), key=self._crowd)
                places += [(path, key) for key in keys]
        for path, key in places:
            self._file(path, key, value)
        self._places[value] = places

    def discard(self, value: T) -> None:
        """Take `value` out, if it is there."""
        for path, key in dict.fromkeys(self._places.pop(value, ())):
            if self._paths[path].discard(key, value):
                del self._paths[path]
                for step in _steps_to(path):
                    self._steps[step] -= 1
                    if not self._steps[step]:
                        del self._steps[step]
        self._always.pop(value, None)

    def candidates(self, event: Mapping[str, Any]) -> set[T]:
        """All that may match: none is left out, and of the rest few are in."""
        found = set(self._always)
        if self._paths:
            for name, value in ready(event).items():
                self._visit(value, name, found)
        return found

    def _visit(self, value: Any, path: str, found: set[T]) -> None:
        if path not in self._steps:
            return
        if isinstance(value, dict):
            for name, child in value.items():
                self._visit(child, f"{path}.{name}", found)
        elif isinstance(value, list):
            for item in value:
                self._visit(item, path, found)
        elif path in self._paths:
            self._paths[path].collect(value, found)

    def _crowd(self, need: tuple[str, tuple[Key, ...]]) -> tuple[int, int]:
        """How many an event would find beside it: worst of all its keys, first letters counting for more."""
        path, keys = need
        known = self._paths.get(path)
        crowd = max(map(known.crowd, keys)) if known else 0
        return crowd + sum(key.kind == STARTS for key in keys), len(keys)

    def _file(self, path: str, key: Key, value: T) -> None:
        if path not in self._paths:
            self._paths[path] = _Path()
            self._steps.update(_steps_to(path))
        self._paths[path].add(key, value)


def _steps_to(path: str) -> list[str]:
    """`path` and all that leads to it: `a`, `a.b`, `a.b.c`."""
    words = path.split(".")
    return [".".join(words[:length]) for length in range(1, len(words) + 1)]


class _Path(Generic[T]):
    """What is filed under one path: by kind of key, then by its value."""

    __slots__ = ("_filed", "_lengths")

    def __init__(self) -> None:
        self._filed: dict[str, dict[Any, dict[T, None]]] = {}
        #: The lengths of the beginnings: a text is cut to each of them and looked up.
        self._lengths: Counter[int] = Counter()

    def crowd(self, key: Key) -> int:
        return len(self._filed.get(key.kind, _NOTHING).get(key.value, ()))

    def add(self, key: Key, value: T) -> None:
        filed = self._filed.setdefault(key.kind, {})
        if key.value not in filed:
            filed[key.value] = {}
            if key.kind == STARTS:
                self._lengths[len(key.value)] += 1
        filed[key.value][value] = None

    def discard(self, key: Key, value: T) -> bool:
        """Take one out; whether that leaves nothing."""
        filed = self._filed[key.kind]
        del filed[key.value][value]
        if not filed[key.value]:
            del filed[key.value]
            if key.kind == STARTS:
                self._lengths -= Counter([len(key.value)])
            if not filed:
                del self._filed[key.kind]
        return not self._filed

    def collect(self, value: Any, found: set[T]) -> None:
        """Add to `found` all that a value of an event may be meant by."""
        if SAME in self._filed:
            found.update(self._filed[SAME].get(form_of(value), ()))
        if not isinstance(value, str):
            return
        if STARTS in self._filed:
            starts = self._filed[STARTS]
            for length in self._lengths:
                if value[:length] in starts:
                    found.update(starts[value[:length]])
        if FOLDED in self._filed:
            found.update(self._filed[FOLDED].get(fold(value), ()))
        if ADDRESS in self._filed and (address := parse_address(value)) is not None:
            found.update(self._filed[ADDRESS].get(address, ()))
