"""One alternative of a leaf: a literal, or an object with one operator. Compiled to a test of one event value."""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from typing import Any

import re2  # type: ignore[import-untyped]

from esb_workers.expressions.patterns.values import (
    NUMBER_LIMIT,
    Test,
    comparable,
    equals,
    fold,
    in_network,
    is_number,
    same_number,
    wildcard,
)

#: Characters of a `regex`, and bytes that its automaton may take.
MAX_REGEX = 1000
_REGEX_MEMORY = 1 << 20
#: How deeply `all` and `not` may nest.
MAX_DEPTH = 8


class PatternFault(Exception):
    """What is wrong with a piece of a pattern, and where below it."""

    def __init__(self, message: str, where: str = "") -> None:
        super().__init__(message)
        self.message, self.where = message, where


COMPARISONS: dict[str, Callable[[int, int], bool]] = {
    "=": operator.eq,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}


def compile_alternative(item: Any, depth: int = 0) -> Test:
    """The test of a literal or operator object other than `exists`. Raises PatternFault."""
    if isinstance(item, dict):
        name, argument = only_entry(item)
        if name in COMBINING:
            return _below(name, lambda inner: COMBINING[name](inner, depth + 1), argument)
        if name not in OPERATORS and name not in EXTENSIONS:
            known = ", ".join(sorted([*OPERATORS, *EXTENSIONS, *COMBINING]))
            raise PatternFault(f"{name!r} is not an operator; there are {known} and exists")
        return _below(name, OPERATORS.get(name) or EXTENSIONS[name], argument)
    if isinstance(item, list):
        raise PatternFault("a match value must be a string, a number, true, false, null or an operator object")
    return equals(item)


def only_entry(item: dict[str, Any]) -> tuple[str, Any]:
    """The one entry of an operator object. Raises PatternFault for none or several."""
    if len(item) != 1:
        raise PatternFault("an operator object has exactly one key")
    return next(iter(item.items()))


def _below(name: str, compiler: Callable[[Any], Test], argument: Any) -> Test:
    try:
        return compiler(argument)
    except PatternFault as fault:
        raise PatternFault(fault.message, f".{name}{fault.where}") from None
    except ValueError as error:
        raise PatternFault(str(error), f".{name}") from None


def _text(argument: Any) -> str:
    if not isinstance(argument, str):
        raise PatternFault("must be a string")
    return argument


def _on_text(test: Callable[[str], bool]) -> Test:
    return lambda value: isinstance(value, str) and test(value)


def _equals_ignoring_case(argument: Any) -> Test:
    wanted = fold(_text(argument))
    return _on_text(lambda value: fold(value) == wanted)


def _affix(method: Callable[[str, str], bool]) -> Callable[[Any], Test]:
    """`prefix` or `suffix`: text, or `{"equals-ignore-case": text}`."""

    def folded(argument: Any) -> Test:
        wanted = fold(_text(argument))
        return _on_text(lambda value: method(fold(value), wanted))

    def compiler(argument: Any) -> Test:
        if isinstance(argument, dict):
            name, inner = only_entry(argument)
            if name != "equals-ignore-case":
                raise PatternFault(f"takes a string or equals-ignore-case, not {name!r}")
            return _below(name, folded, inner)
        wanted = _text(argument)
        return _on_text(lambda value: method(value, wanted))

    return compiler


def _wildcard(argument: Any) -> Test:
    return wildcard(_text(argument))


def _cidr(argument: Any) -> Test:
    return in_network(_text(argument))


def _exactly(argument: Any) -> Test:
    wanted = _text(argument)
    return lambda value: bool(value == wanted)


def _numeric(argument: Any) -> Test:
    """`[op, n]` or a range `[> or >=, low, < or <=, high]`."""
    if not isinstance(argument, list) or len(argument) not in (2, 4):
        raise PatternFault("must be [operator, number] or [operator, number, operator, number]")
    bounds = [_bound(argument, at) for at in range(0, len(argument), 2)]
    if len(bounds) == 2:
        _check_range(argument)

    def test(value: Any) -> bool:
        millionths = comparable(value) if is_number(value) else None
        return millionths is not None and all(compare(millionths, limit) for compare, limit in bounds)

    return test


def _bound(argument: list[Any], at: int) -> tuple[Callable[[int, int], bool], int]:
    name, limit = argument[at], argument[at + 1]
    if not isinstance(name, str) or name not in COMPARISONS:
        raise PatternFault(f"must be one of {' '.join(COMPARISONS)}", f"[{at}]")
    return COMPARISONS[name], _in_range(limit, f"[{at + 1}]")


def _in_range(number: Any, where: str) -> int:
    """A number of the pattern in millionths. Raises PatternFault for what cannot be compared."""
    if not is_number(number):
        raise PatternFault("must be a number", where)
    millionths = comparable(number)
    if millionths is None:
        raise PatternFault(f"must be from -{NUMBER_LIMIT} to {NUMBER_LIMIT}", where)
    return millionths


def _check_range(argument: list[Any]) -> None:
    if argument[0] not in (">", ">="):
        raise PatternFault("a range starts with > or >=", "[0]")
    if argument[2] not in ("<", "<="):
        raise PatternFault("a range ends with < or <=", "[2]")
    if _in_range(argument[1], "[1]") >= _in_range(argument[3], "[3]"):
        raise PatternFault("the bottom of a range must be less than its top")


def _anything_but(argument: Any) -> Test:
    """A string or number, a list of only one of the kinds, or one operator over a string or a list of strings."""
    if isinstance(argument, dict):
        name, inner = only_entry(argument)
        if name not in _NEGATABLE:
            raise PatternFault(f"{name!r} is not supported here; there are {', '.join(sorted(_NEGATABLE))}")
        return _below(name, lambda values: _none_of(_negated(name, values)), inner)
    values = argument if isinstance(argument, list) else [argument]
    kinds = {_kind(value) for value in values}
    if None in kinds:
        raise PatternFault("takes strings or numbers; true, false, null and lists inside are not supported")
    if len(kinds) != 1:
        raise PatternFault("must be all strings or all numbers, and not empty")
    for at, value in enumerate(values):
        if is_number(value):
            _in_range(value, f"[{at}]" if isinstance(argument, list) else "")
    # Not `equals`: here text that writes an address is only text.
    return _none_of([same_number(v) if is_number(v) else _exactly(v) for v in values])


def _kind(value: Any) -> str | None:
    if isinstance(value, str):
        return "string"
    return "number" if is_number(value) else None


def _negated(name: str, argument: Any) -> list[Test]:
    values = argument if isinstance(argument, list) else [argument]
    if not values:
        raise PatternFault("must not be an empty list")
    for value in values:
        if _text(value) == "" and name in ("prefix", "suffix"):
            raise PatternFault("must not be empty")
    return [OPERATORS[name](value) for value in values]


def _none_of(tests: Sequence[Test]) -> Test:
    return lambda value: not any(test(value) for test in tests)


def _regex(argument: Any) -> Test:
    """RE2's syntax, found anywhere in the text unless `^` or `$` say otherwise; time linear in the text."""
    text = _text(argument)
    if len(text) > MAX_REGEX:
        raise PatternFault(f"is longer than {MAX_REGEX} characters")
    options = re2.Options()
    options.max_mem, options.log_errors = _REGEX_MEMORY, False
    try:
        compiled = re2.compile(text, options)
    except re2.error as error:
        raise PatternFault(f"is not a regular expression: {_reason(error)}") from None
    return _on_text(lambda value: compiled.search(value) is not None)


def _reason(error: Exception) -> str:
    said = error.args[0] if error.args else error
    return said.decode("utf-8", "replace") if isinstance(said, bytes) else str(said)


def _all(argument: Any, depth: int) -> Test:
    """`all [alternative, …]`: one value satisfies each of them."""
    if not isinstance(argument, list) or not argument:
        raise PatternFault("must be a non-empty list of alternatives")
    tests = [_inside(item, depth, f"[{index}]") for index, item in enumerate(argument)]
    return lambda value: all(test(value) for test in tests)


def _not(argument: Any, depth: int) -> Test:
    """`not alternative`: the field has a value that does not satisfy it."""
    test = _inside(argument, depth, "")
    return lambda value: not test(value)


def _inside(item: Any, depth: int, where: str) -> Test:
    if depth > MAX_DEPTH:
        raise PatternFault(f"nests deeper than {MAX_DEPTH}", where)
    if isinstance(item, dict) and "exists" in item:
        raise PatternFault("exists is not supported here", where)
    try:
        return compile_alternative(item, depth)
    except PatternFault as fault:
        raise PatternFault(fault.message, f"{where}{fault.where}") from None


_NEGATABLE = frozenset({"prefix", "suffix", "equals-ignore-case", "wildcard"})
OPERATORS: dict[str, Callable[[Any], Test]] = {
    "prefix": _affix(str.startswith),
    "suffix": _affix(str.endswith),
    "equals-ignore-case": _equals_ignoring_case,
    "wildcard": _wildcard,
    "anything-but": _anything_but,
    "numeric": _numeric,
    "cidr": _cidr,
    "exactly": _exactly,
}
#: What this bus adds to EventBridge's language.
EXTENSIONS: dict[str, Callable[[Any], Test]] = {"regex": _regex}
COMBINING: dict[str, Callable[[Any, int], Test]] = {"all": _all, "not": _not}
