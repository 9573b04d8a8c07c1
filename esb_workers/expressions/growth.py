"""How far an expression may blow up the text it is given, seen from its tokens alone.

CEL bounds the rounds of macros, not the size of what is made in them: a few nested `cel.bind(a, a + a, …)` make
gigabytes. So before an evaluation the most that its operations could move is reckoned from above, and an expression
for which that is too much is refused. What cannot grow costs nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from esb_workers.expressions.lexing import Token, literal

#: Characters and list items that one evaluation may at most move: about a second.
MAX_MOVED = 1 << 29
#: Rounds of macros that the library allows in one evaluation, about.
MAX_ROUNDS = 10_000

#: Characters of the JSON of an entry of a lookup table.
MAX_ENTRY = 65_536

_BINDING = frozenset({"bind", "map", "optMap", "optFlatMap"})
_ROUNDS = frozenset({"map", "filter", "all", "exists", "exists_one", "existsOne"})
_BY_VALUE = frozenset({"replace", "join"})


@dataclass(frozen=True, slots=True)
class Growth:
    """What the tokens of an expression say about it."""

    factor: int = 1  # copies of one value that operations outside of rounds make at most
    powers: int = 1  # how many sizes of values may multiply: `replace` and `join` put one into each place of another
    rounds: bool = False  # whether it works through lists
    separators: tuple[str, ...] = ()  # at which it splits texts into lists; an empty one: wherever it may
    looks_up: bool = False  # whether it may get values that it is not given

    @property
    def grows(self) -> bool:
        """Whether sizes matter at all."""
        return self.factor > 1 or self.powers > 1

    def moved(self, data: dict[str, Any], source: str) -> int:
        """The most that an evaluation with `data` may move."""
        text, items = _largest(data)
        text = max(text, len(source), items, MAX_ENTRY if self.looks_up else 0)
        rounds = min(MAX_ROUNDS, max(items, self.pieces(data), 1)) if self.rounds else 1
        return int(self.factor * rounds * text**self.powers)

    def pieces(self, data: dict[str, Any]) -> int:
        """The most items that a list may have which is split from a text."""
        return max((self.factor * (1 + _most(data, separator)) for separator in self.separators), default=0)


def growth_of(source: list[Token]) -> Growth:
    """How the expression of these tokens may grow."""
    names = [token.text for token in source if token.kind == "name"]
    pluses = sum(token.kind == "sign" and token.text == "+" for token in source)
    factor = (1 + pluses) * (2 + pluses) // 2  # a chain of additions copies its beginning again and again
    if "format" in names:
        factor *= 1 + sum(token.kind == "sign" and token.text == "," for token in source)
    powers = 1
    for at, token in enumerate(source):
        if token.kind != "name" or at + 1 == len(source) or source[at + 1].text != "(":
            continue
        if token.text in _BINDING:
            factor *= max(1, names.count(_bound_name(source, at)) - 1)
        elif token.text in _BY_VALUE:
            put_in = _put_in(source, at)
            powers, factor = (powers + 1, factor) if put_in is None else (powers, factor * (1 + put_in))
    separators = tuple(_separator(source, at) for at, token in enumerate(source) if token.text == "split")
    return Growth(factor, powers, not _ROUNDS.isdisjoint(names), separators, "lookup" in names)


def _bound_name(source: list[Token], at: int) -> str:
    return source[at + 2].text if at + 2 < len(source) else ""


def _put_in(source: list[Token], at: int) -> int | None:
    """Characters that `join` or `replace` put into each place, where only literals say so; else None."""
    following = source[at + 2 : at + 6]
    if source[at].text == "join":
        if following[:1] and following[0].text == ")":
            return 0
        plain = len(following) > 1 and following[0].kind == "string" and following[1].text == ")"
        return len(following[0].text) - 2 if plain else None
    if len(following) < 4 or [token.kind for token in following[:3]] != ["string", "sign", "string"]:
        return None
    return len(following[2].text) - 2 if following[3].text in (")", ",") else None


def _separator(source: list[Token], at: int) -> str:
    following = source[at + 2 : at + 4]
    if len(following) == 2 and following[1].text in (")", ",") and isinstance(found := literal(following[0]), str):
        return found
    return ""


def _most(value: Any, separator: str) -> int:
    """How often a separator stands in one text of `value`."""
    if isinstance(value, str):
        return value.count(separator)
    if isinstance(value, (dict, list)):
        inner = value.values() if isinstance(value, dict) else value
        return max((_most(item, separator) for item in inner), default=0)
    return 0


def _largest(value: Any) -> tuple[int, int]:
    """The longest text and the longest list in `value`."""
    if isinstance(value, str):
        return len(value), 0
    if isinstance(value, dict):
        below = [_largest(item) for item in value.values()]
        return max((text for text, _ in below), default=0), max([len(value), *(items for _, items in below)])
    if isinstance(value, list):
        below = [_largest(item) for item in value]
        return max((text for text, _ in below), default=0), max([len(value), *(items for _, items in below)])
    return 0, 0
