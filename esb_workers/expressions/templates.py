"""Templates: JSON in whose strings `${CEL}` stands for values.

A string that is wholly one `${…}` becomes the value itself, whatever its type. Inside a longer string a string
stands as it is and any other value as JSON. `$${` is a literal `${`. Keys are not templates.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any
from urllib.parse import quote, unquote

from esb_workers.errors import ExpressionError, FieldError, Invalid
from esb_workers.expressions.cel import MAX_SOURCE_BYTES, Expression, SyntaxFault, parse
from esb_workers.expressions.lexing import closing_brace

#: Characters of one rendered string; a template may name a large value many times.
MAX_TEXT = 16 * 1024 * 1024

Part = str | Expression
Variables = Mapping[str, Any]


def compile_template(value: Any, path: str) -> Template:
    """Compile any JSON value. Raises Invalid naming each fault by its path and its position in the string."""
    faults: list[FieldError] = []
    expressions: list[Expression] = []
    render = _compile(value, path, faults, expressions)
    if faults:
        raise Invalid(faults)
    return Template(value, render, expressions)


class Template:
    """A compiled template. Immutable and safe to share between threads."""

    def __init__(self, source: Any, render: Callable[[Variables], Any] | None, expressions: list[Expression]) -> None:
        self.source = source
        self._render = render
        #: The variables it may ask for.
        self.names: frozenset[str] = frozenset().union(*(expression.names for expression in expressions))
        #: Whether it may ask lookup tables.
        self.looks_up = any(expression.looks_up for expression in expressions)

    @property
    def is_static(self) -> bool:
        """Whether rendering gives the same value whatever the variables."""
        return self._render is None

    def render(self, variables: Variables) -> Any:
        """The value. What is static in it is shared with the template: do not change it. Raises ExpressionError."""
        return _unescaped(self.source) if self._render is None else self._render(variables)

    def render_text(self, variables: Variables) -> str:
        """The value as text: a string as it is, anything else as JSON. Raises ExpressionError."""
        return _text(self.render(variables))

    def render_string_percent_encoded(self, variables: Variables) -> str:
        """For paths: what stands literally stays, each value is percent-encoded (UTF-8, `/` included).

        Raises ExpressionError, also when values would turn a segment into `.` or `..`.
        """
        if not isinstance(self.source, str):
            raise ExpressionError("only a string can be a path")
        parts = list(_parts(self.source))
        text = "".join(p if isinstance(p, str) else quote(_text(p.evaluate(variables)), safe="") for p in parts)
        if len(parts) > 1 or not isinstance(parts[0], str):
            _refuse_dot_segments(text)
        return text


def _refuse_dot_segments(text: str) -> None:
    if any(unquote(segment) in (".", "..") for segment in text.partition("?")[0].split("/")):
        raise ExpressionError("the values make a path segment that climbs")


def _compile(
    value: Any, path: str, faults: list[FieldError], expressions: list[Expression]
) -> Callable[[Variables], Any] | None:
    """A function that renders `value`, or None when it is static."""
    if isinstance(value, str):
        return _compile_string(value, path, faults, expressions)
    if isinstance(value, dict):
        fields = {k: _compile(v, f"{path}.{k}" if path else k, faults, expressions) for k, v in value.items()}
        if not any(fields.values()):
            return None
        pairs = [(key, render or _constant(value[key])) for key, render in fields.items()]
        return lambda variables: {key: render(variables) for key, render in pairs}
    if isinstance(value, list):
        items = [_compile(item, f"{path}[{index}]", faults, expressions) for index, item in enumerate(value)]
        if not any(items):
            return None
        renders = [render or _constant(item) for render, item in zip(items, value, strict=True)]
        return lambda variables: [render(variables) for render in renders]
    return None


def _constant(value: Any) -> Callable[[Variables], Any]:
    constant = _unescaped(value)
    return lambda variables: constant


def _unescaped(value: Any) -> Any:
    """A static value with `$${` read as `${`."""
    if isinstance(value, str):
        return value.replace("$${", "${")
    if isinstance(value, dict):
        return {key: _unescaped(item) for key, item in value.items()}
    return [_unescaped(item) for item in value] if isinstance(value, list) else value


def _compile_string(
    text: str, path: str, faults: list[FieldError], expressions: list[Expression]
) -> Callable[[Variables], Any] | None:
    try:
        parts = list(_parts(text))
    except SyntaxFault as fault:
        faults.append(FieldError(path, str(fault)))
        return None
    found = [part for part in parts if isinstance(part, Expression)]
    expressions += found
    if not found:
        return None
    return found[0].evaluate if len(parts) == 1 else lambda variables: _joined(parts, variables)


def _joined(parts: list[Part], variables: Variables) -> str:
    pieces: list[str] = []
    length = 0
    for part in parts:
        pieces.append(part if isinstance(part, str) else _text(part.evaluate(variables)))
        length += len(pieces[-1])
        if length > MAX_TEXT:
            raise ExpressionError(f"a rendered string is longer than {MAX_TEXT} characters")
    return "".join(pieces)


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _parts(text: str) -> Iterator[Part]:
    """Literal text and expressions in turn, at least one of them. Raises SyntaxFault with the position."""
    literal, position = "", 0
    while (dollar := text.find("$", position)) >= 0:
        literal += text[position:dollar]
        if text.startswith("$${", dollar):
            literal, position = literal + "${", dollar + 3
        elif text.startswith("${", dollar):
            if literal:
                yield literal
            literal = ""
            end = _end_of_expression(text, dollar + 2)
            yield _expression(text[dollar + 2 : end], dollar + 1)
            position = end + 1
        else:
            literal, position = literal + "$", dollar + 1
    literal += text[position:]
    if literal or not text or position == 0:
        yield literal


def _end_of_expression(text: str, start: int) -> int:
    # One more than an expression may be long, so that a missing brace never makes a long scan.
    limit = min(len(text), start + MAX_SOURCE_BYTES + 1)
    end = closing_brace(text, start, limit)
    if end is None:
        if limit < len(text):
            raise SyntaxFault(f"the expression at position {start - 1} is not closed within {MAX_SOURCE_BYTES} bytes")
        raise SyntaxFault(f"the ${{ at position {start - 1} is never closed")
    return end


def _expression(source: str, position: int) -> Expression:
    try:
        return parse(source)
    except SyntaxFault as fault:
        raise SyntaxFault(f"in the ${{ at position {position}: {fault}") from None
