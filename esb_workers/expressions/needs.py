"""What a message must have for a CEL filter to say yes, as far as its text shows it plainly.

Of the parts that `&&` joins, those that compare a field with a literal: `payload.customer == 'c-1'`,
`headers.region in ['eu', 'us']`. Everything else is passed over, so what is found is necessary and never sufficient.
"""

from __future__ import annotations

from esb_workers.expressions.lexing import Token, joined_by_and, literal, selection, tokens
from esb_workers.expressions.patterns.access import SAME, Key, form_of
from esb_workers.expressions.patterns.compiler import normal_path
from esb_workers.expressions.patterns.conditions import Access
from esb_workers.expressions.patterns.values import NUMBER_LIMIT

#: The variables that are fields of a message.
_FIELDS = frozenset({"payload", "headers", "source", "messageType", "correlationId"})


def needs_of(source: str) -> Access:
    """Path → the keys of which a value there must have one. Empty if the text shows none."""
    found: dict[str, tuple[Key, ...]] = {}
    for part in joined_by_and(list(tokens(source))):
        need = _equality(part) or _membership(part)
        if need is not None:
            found[need[0]] = need[1]
    return found


def _equality(part: list[Token]) -> tuple[str, tuple[Key, ...]] | None:
    for at in range(1, len(part) - 2):
        if part[at].text == part[at + 1].text == "=" and part[at].kind == "sign":
            left, right = part[:at], part[at + 2 :]
            return _need(left, [right]) or _need(right, [left])
    return None


def _membership(part: list[Token]) -> tuple[str, tuple[Key, ...]] | None:
    for at, token in enumerate(part):
        if token.kind == "name" and token.text == "in":
            listed = part[at + 1 :]
            if len(listed) < 3 or listed[0].text != "[" or listed[-1].text != "]":
                return None
            if any(comma.text != "," for comma in listed[2:-1:2]):
                return None
            return _need(part[:at], [[item] for item in listed[1:-1:2]])
    return None


def _need(field: list[Token], wanted: list[list[Token]]) -> tuple[str, tuple[Key, ...]] | None:
    path = _path(field)
    if path is None or not wanted:
        return None
    keys = []
    for text in wanted:
        value = literal(text[0]) if len(text) == 1 else None
        if value is None or (isinstance(value, int) and value > NUMBER_LIMIT):
            return None
        keys.append(Key(SAME, form_of(value)))
    return path, tuple(keys)


def _path(field: list[Token]) -> str | None:
    """The path of a selection as conditions write it: into a list, and past its elements."""
    steps = selection(field)
    if steps is None:
        return None
    if steps[0] == "message":
        steps = steps[1:]
    elif steps[0] not in _FIELDS:
        return None
    words = [step for step in steps if isinstance(step, str)]
    return normal_path(".".join(words)) if words else None
