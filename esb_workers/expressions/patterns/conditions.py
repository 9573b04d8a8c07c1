"""A compiled pattern: does an event match, and if not, which clause said no."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from esb_workers.errors import Invalid
from esb_workers.expressions.patterns.access import Key
from esb_workers.expressions.patterns.arrays import TooIntricate, satisfiable
from esb_workers.expressions.patterns.compiler import Combination, Compiler, Leaf
from esb_workers.expressions.patterns.events import Found, paths, ready

_SHOWN = 120  # characters of a value or a leaf in an explanation
_ALTERNATIVES_SHOWN = 10

Fields = tuple[tuple[str, Leaf], ...]
#: Path → the keys of which a value there must have one; of one alternative of a pattern.
Access = Mapping[str, tuple[Key, ...]]


def compile_conditions(pattern: Any, *, roots: frozenset[str] | None = None, path: str = "conditions") -> Conditions:
    """Compile an event pattern. Raises Invalid naming each fault by its path below `path`.

    `roots`, when given, are the only first words that top-level keys may have.
    """
    compiler = Compiler(roots)
    combinations = compiler.compile(pattern, path)
    if compiler.faults:
        raise Invalid(compiler.faults)
    return Conditions(combinations)


class Conditions:
    """A pattern that is valid. Immutable and safe to share between threads."""

    def __init__(self, combinations: Sequence[Combination]) -> None:
        self._combinations: tuple[Fields, ...] = tuple(tuple(sorted(fields.items())) for fields in combinations)
        self._paths = paths(frozenset(path for fields in self._combinations for path, _ in fields))

    @property
    def access(self) -> list[Access]:
        """What an event must have, for each alternative of the pattern, to be worth asking about; see index."""
        return [{path: leaf.keys for path, leaf in fields if leaf.keys is not None} for fields in self._combinations]

    def matches(self, event: Mapping[str, Any]) -> bool:
        """Whether `event`, a JSON object, matches."""
        found = self._paths.find(ready(event))
        try:
            for fields in self._combinations:
                if _holds(fields, found):
                    return True
        except TooIntricate:
            pass
        return False

    def explain(self, event: Mapping[str, Any]) -> list[str]:
        """Why `event` does not match, one line a clause; empty when it does."""
        if self.matches(event):
            return []
        found = self._paths.find(ready(event))
        reasons = [_reasons(fields, found) for fields in self._combinations]
        common = [reason for reason in reasons[0] if all(reason in other for other in reasons)]
        if common or len(reasons) == 1:
            return common or reasons[0]
        shown = reasons[:_ALTERNATIVES_SHOWN]
        return [f"alternative {number} of $or: {'; '.join(lines)}" for number, lines in enumerate(shown, 1)]


def _holds(fields: Fields, found: Mapping[str, Sequence[Found]]) -> bool:
    """Whether all fields hold together. What one field alone shows, and events without arrays, are decided at once."""
    in_arrays = False
    for path, leaf in fields:
        values = found.get(path, ())
        for value in values:
            if value.membership:
                in_arrays = True
            if leaf.accepts(value.value):
                break
        else:
            if not leaf.absent or any(not value.membership for value in values):
                return False
    return not in_arrays or satisfiable(fields, found)


def _reasons(fields: Fields, found: Mapping[str, Sequence[Found]]) -> list[str]:
    failed = [_reason(path, leaf, found.get(path, ())) for path, leaf in fields if not _alone(path, leaf, found)]
    if failed:
        return failed
    paths = ", ".join(path for path, _ in fields)
    return [f"{paths}: each matches, but not within the same element of an array"]


def _alone(path: str, leaf: Leaf, found: Mapping[str, Sequence[Found]]) -> bool:
    return satisfiable(((path, leaf),), found)


def _reason(path: str, leaf: Leaf, values: Sequence[Found]) -> str:
    if not values:
        return f"{path} is absent, wanted {_short(leaf.text)}"
    shown = ", ".join(json.dumps(value.value, ensure_ascii=False) for value in values[:3])
    return f"{path} is {_short(shown)}, wanted {_short(leaf.text)}"


def _short(text: str) -> str:
    return text if len(text) <= _SHOWN else text[: _SHOWN - 1] + "…"
