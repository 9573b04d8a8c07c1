"""From the JSON of a pattern to alternatives, each a map of dotted path → leaf. Every fault is collected."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from esb_workers.errors import FieldError
from esb_workers.expressions.patterns.access import Key, keys_of
from esb_workers.expressions.patterns.complexity import too_complex
from esb_workers.expressions.patterns.operators import COMPARISONS, OPERATORS, PatternFault, compile_alternative
from esb_workers.expressions.patterns.values import Test

#: A pattern whose `$or`s multiply to more combinations is refused, as at AWS.
MAX_COMBINATIONS = 1000
HEADER_ROOTS = ("header", "headers")

_BARE_KEYS = ("source", "messageType", "correlationId")
_BARE_PREFIXES = ("header.", "headers.", "payload.")
_SCALARS = (str, int, float, bool, type(None))

#: No field may have these names inside `$or`: some are operators, the rest is kept for those to come.
RESERVED = (
    frozenset(OPERATORS)
    | frozenset(COMPARISONS)
    | {"exists", "regex", "not-wildcard", "not-equals-ignore-case", "in-date-range"}
    | {"date-after", "date-on-or-after", "date-before", "date-on-or-before"}
    | {"ip-address-in-range", "ip-address-not-in-range"}
)


@dataclass(frozen=True, slots=True)
class Leaf:
    """The alternatives for one path."""

    accepts: Test  # whether a present leaf value satisfies one of them
    absent: bool  # `exists: false` is among them
    text: str  # the JSON of the list, for explanations
    keys: tuple[Key, ...] | None  # of which an accepted value has one; None: unknown, or none is needed


def _any_of(tests: list[Test]) -> Test:
    if len(tests) == 1:
        return tests[0]
    return lambda value: any(test(value) for test in tests)


#: One combination of `$or` alternatives: the fields that must all match.
Combination = dict[str, Leaf]


class Compiler:
    """Compiles one pattern; `faults` holds what is wrong with it."""

    def __init__(self, roots: frozenset[str] | None) -> None:
        self.faults: list[FieldError] = []
        self._roots = roots

    def compile(self, pattern: Any, where: str) -> list[Combination]:
        """The combinations of `pattern`; meaningless once there are faults."""
        if not isinstance(pattern, dict):
            self._fault(where, "must be an object")
            return []
        return self._fields([{}], pattern, "", where, inside_or=False)

    def _fault(self, where: str, message: str) -> None:
        self.faults.append(FieldError(where, message))

    def _fields(
        self, combinations: list[Combination], fields: Mapping[str, Any], prefix: str, where: str, inside_or: bool
    ) -> list[Combination]:
        if not fields:
            self._fault(where, "must not be empty")
        for name, value in fields.items():
            at = f"{where}.{name}"
            if name == "$or":
                combinations = self._or(combinations, value, prefix, at)
            elif inside_or and name in RESERVED:
                self._fault(at, f"{name!r} is a reserved name and cannot be a field inside $or")
            elif prefix or self._root_is_known(name, at):
                combinations = self._field(combinations, name, value, prefix, at, inside_or)
        return combinations

    def _root_is_known(self, name: str, at: str) -> bool:
        if self._roots is None or name.split(".", 1)[0] in self._roots:
            return True
        self._fault(at, f"is not a field of a message; there are {', '.join(sorted(self._roots))}")
        return False

    def _field(
        self, combinations: list[Combination], name: str, value: Any, prefix: str, at: str, inside_or: bool
    ) -> list[Combination]:
        path = f"{prefix}.{name}" if prefix else name
        if isinstance(value, dict):
            return self._fields(combinations, value, path, at, inside_or)
        if not isinstance(value, list):
            if prefix or inside_or or not _may_be_bare(name, value):
                self._fault(at, "must be an object or a non-empty list of alternatives")
                return combinations
            value = [value]
        self._add(combinations, normal_path(path), self._leaf(value, at))
        return combinations

    def _add(self, combinations: list[Combination], path: str, leaf: Leaf) -> None:
        # A path given twice, dotted and nested or inside and outside of `$or`, means what it says last, as at AWS.
        for fields in combinations:
            fields[path] = leaf

    def _leaf(self, items: list[Any], at: str) -> Leaf:
        if not items:
            self._fault(at, "must not be an empty list")
        tests: list[Test] = []
        absent = False
        for index, item in enumerate(items):
            if isinstance(item, dict) and list(item) == ["exists"]:
                absent = absent or item["exists"] is False
                tests += self._presence(item["exists"], f"{at}[{index}].exists")
                continue
            try:
                tests.append(compile_alternative(item))
            except PatternFault as fault:
                self._fault(f"{at}[{index}]{fault.where}", fault.message)
        if not self.faults and too_complex(_wildcards(items)):
            self._fault(at, "is too complex: use fewer wildcard characters, or less that repeats after one")
        keys = None if absent or self.faults else keys_of(items)
        return Leaf(_any_of(tests), absent, json.dumps(items, ensure_ascii=False), keys)

    def _presence(self, wanted: Any, at: str) -> list[Test]:
        if not isinstance(wanted, bool):
            self._fault(at, "must be true or false")
        return [lambda value: True] if wanted is True else []

    def _or(self, combinations: list[Combination], groups: Any, prefix: str, at: str) -> list[Combination]:
        if not isinstance(groups, list) or len(groups) < 2:
            self._fault(at, "must be a list of at least two objects")
            return combinations
        multiplied: list[Combination] = []
        for index, group in enumerate(groups):
            if not isinstance(group, dict):
                self._fault(f"{at}[{index}]", "must be an object")
                continue
            copies = [dict(fields) for fields in combinations]
            multiplied += self._fields(copies, group, prefix, f"{at}[{index}]", inside_or=True)
            if len(multiplied) > MAX_COMBINATIONS:
                self._fault(at, f"results in more than {MAX_COMBINATIONS} combinations")
                return combinations
        return multiplied


def _wildcards(items: list[Any]) -> list[str]:
    """Every wildcard pattern of a leaf that is otherwise good."""
    found: list[str] = []
    for item in items:
        if isinstance(item, dict):
            for name, argument in item.items():
                if name == "wildcard":
                    found += [argument] if isinstance(argument, str) else argument
                else:
                    found += _wildcards(argument if isinstance(argument, list) else [argument])
    return found


def normal_path(path: str) -> str:
    """`header` and `headers` are one root, and header names compare without regard to case."""
    root, dot, rest = path.partition(".")
    return f"headers{dot}{rest.lower()}" if root in HEADER_ROOTS else path


def _may_be_bare(name: str, value: Any) -> bool:
    return isinstance(value, _SCALARS) and (name in _BARE_KEYS or name.startswith(_BARE_PREFIXES))
