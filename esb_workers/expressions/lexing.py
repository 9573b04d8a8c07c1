"""The tokens of CEL, as far as the bus must know them: to find where an expression ends and what it names."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Iterator
from typing import Any, Final, NamedTuple

_TRIPLE = r'"""(?:\\.|[^\\])*?"""|\'\'\'(?:\\.|[^\\])*?\'\'\''
_SINGLE = r'"(?:\\[^\r\n]|[^"\\\r\n])*"|\'(?:\\[^\r\n]|[^\'\\\r\n])*\''
_RAW = r'"""(?:.*?)"""|\'\'\'(?:.*?)\'\'\'|"[^"\r\n]*"|\'[^\'\r\n]*\''
_TOKEN = re.compile(
    rf"""(?P<space>\s+|//[^\n]*)
    |(?P<string>(?:[rR][bB]?|[bB][rR])(?:{_RAW})|[bB]?(?:{_TRIPLE}|{_SINGLE}))
    |(?P<name>[A-Za-z_][A-Za-z0-9_]*)
    |(?P<number>0[xX][0-9a-fA-F]+[uU]?|[0-9]+(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?[uU]?)
    |(?P<quoted>`[^`\r\n]*`)
    |(?P<sign>[^\s"'`])""",
    re.VERBOSE | re.DOTALL,
)
#: Words that no CEL expression may use as a name; a context may still have them, as `context['package']`.
RESERVED = frozenset(
    {"true", "false", "null", "in", "as", "break", "const", "continue", "else", "for", "function", "if"}
    | {"import", "let", "loop", "package", "namespace", "return", "var", "void", "while"}
)

_COMPARE: Final[dict[str, Callable[[Any, Any], bool]]] = {
    "==": operator.eq, "!=": operator.ne,
    "<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge,
}  # fmt: skip


class Token(NamedTuple):
    """One token: `kind` is string, name, number, quoted, sign, or bad for a quote that is never closed."""

    kind: str
    text: str
    start: int


def tokens(text: str, start: int = 0, end: int | None = None) -> Iterator[Token]:
    """The tokens of `text[start:end]`, without spaces and comments."""
    position, end = start, len(text) if end is None else end
    while position < end:
        found = _TOKEN.match(text, position, end)
        if found is None:
            yield Token("bad", text[position], position)
            return
        position = found.end()
        if found.lastgroup != "space":
            yield Token(str(found.lastgroup), found.group(), found.start())


def closing_brace(text: str, start: int, end: int | None = None) -> int | None:
    """Where the `}` stands that closes the brace opened before `start`; None when it is missing."""
    depth = 0
    for token in tokens(text, start, end):
        if token.text == "{" and token.kind == "sign":
            depth += 1
        elif token.text == "}" and token.kind == "sign":
            if depth == 0:
                return token.start
            depth -= 1
    return None


def root_names(source: list[Token]) -> frozenset[str]:
    """The names that may be variables: every name but those after a dot that selects a field."""
    roots = set()
    for at, token in enumerate(source):
        if token.kind == "name" and token.text not in RESERVED and not _is_field(source, at):
            roots.add(token.text)
    return frozenset(roots)


def _is_field(source: list[Token], at: int) -> bool:
    before = source[at - 1].text if at else ""
    if before == "?" and at >= 2 and source[at - 2].text == ".":
        return True
    return before == "." and at >= 2 and (source[at - 2].kind != "sign" or source[at - 2].text in ")]}")


def selection(source: list[Token]) -> tuple[str | int, ...] | None:
    """The steps of an expression that only selects, such as `payload.lines[0]['sku']`; else None."""
    if not source or source[0].kind != "name" or source[0].text in RESERVED:
        return None
    steps: list[str | int] = [source[0].text]
    at = 1
    while at < len(source):
        step, width = _select_step(source, at)
        if step is None:
            return None
        steps.append(step)
        at += width
    return tuple(steps)


def _select_step(source: list[Token], at: int) -> tuple[str | int | None, int]:
    following = source[at + 1 : at + 3]
    if source[at].text == "." and following and following[0].kind == "name":
        return following[0].text, 2
    if source[at].text == "[" and len(following) == 2 and following[1].text == "]":
        return literal(following[0]), 3
    return None, 0


def literal(token: Token) -> str | int | None:
    """The text or whole number that a token plainly writes, without escapes; else None."""
    if token.kind == "number" and re.fullmatch(r"0|[1-9][0-9]{0,8}", token.text):
        return int(token.text)
    if token.kind == "string" and re.fullmatch(r"'[^'\\]*'|\"[^\"\\]*\"", token.text):
        return token.text[1:-1]
    return None


def joined_by_and(source: list[Token]) -> Iterator[list[Token]]:
    """The parts of a conjunction, the whole if it is none; nothing where `||` or `?` binds less."""
    parts: list[list[Token]] = [[]]
    depth = at = 0
    while at < len(source):
        text = source[at].text if source[at].kind == "sign" else ""
        depth += (text in tuple("([{")) - (text in tuple(")]}"))
        if depth == 0 and text in ("|", "?"):
            return
        if depth == 0 and text == "&":
            parts.append([])
            at += 1  # the second `&`
        else:
            parts[-1].append(source[at])
        at += 1
    yield from parts


class Comparison(NamedTuple):
    """`payload.total > 100`: what a selection finds, compared with a literal."""

    steps: tuple[str | int, ...]
    holds: Callable[[Any, Any], bool]
    literal: str | int


def comparisons(source: list[Token]) -> list[Comparison] | None:
    """Of an expression that only compares, or joins comparisons by `&&`; else None."""
    found = [_comparison(part) for part in joined_by_and(source)]
    plain = [one for one in found if one is not None]
    return plain if plain and len(plain) == len(found) else None


def _comparison(part: list[Token]) -> Comparison | None:
    for width in (2, 1):  # a sign is one character
        left, signs = part[: -width - 1], part[-width - 1 : -1]
        holds = _COMPARE.get("".join(sign.text for sign in signs if sign.kind == "sign"))
        steps, wanted = selection(left), literal(part[-1]) if part else None
        if holds is not None and len(signs) == width and steps is not None and wanted is not None:
            return Comparison(steps, holds, wanted)
    return None
