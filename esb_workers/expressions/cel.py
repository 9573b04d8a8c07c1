"""CEL, Google's Common Expression Language, over plain JSON.

An expression is parsed when it is saved and looked up name by name when it runs: declaring variables would
break every compile of an environment in which one is called `type` or `list`, and contexts contain such
names. Evaluation enforces budgets: about ten thousand rounds of macros in all, expressions of 4 KiB, results
of a hundred thousand values and 16 MiB of text, and what operations may make of the texts they are given (see
`growth`), so that the worst expression costs a second, not a worker.

Facts about the library this rests on, each held by a test: an evaluation error is *returned*, as a value of
type ERROR; variables are converted whole, so only those that an expression names are handed over; maps lose
the order of their keys, so an expression that merely selects is evaluated here, on the JSON itself; so are the
comparisons that most filters are, which takes a tenth of the time; `map` and `filter` take time quadratic in the length
of the list, so longer lists are refused.
"""

from __future__ import annotations

import base64
import math
import re
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Any

from cel_expr_python import cel  # type: ignore[import-untyped]
from cel_expr_python.ext import (  # type: ignore[import-untyped]
    ext_bindings,
    ext_encoders,
    ext_math,
    ext_optional,
    ext_strings,
)

from esb_workers.clock import to_wire
from esb_workers.errors import ExpressionError, FieldError, Invalid
from esb_workers.expressions import functions, lexing
from esb_workers.expressions.growth import MAX_MOVED, growth_of

MAX_SOURCE_BYTES = 4096
#: Values in one result; a small expression can build lists of lists that share and so multiply.
MAX_RESULT_VALUES = 100_000
#: Characters of all texts in one result.
MAX_RESULT_TEXT = 16 * 1024 * 1024
#: Longest list that an expression with `map` or `filter` may be given (about half a second of CPU).
MAX_MAPPED_LIST = 4000
CACHE_SIZE = 4096  # compiled expressions kept

_POSITION = re.compile(r"ERROR: <input>:(\d+):(\d+): ([^\n]*)")
_TAG = re.compile(r" \[[A-Z_]+\]$")
_STATUS = re.compile(r"^[A-Z_]+: ")
_UNKNOWN_NAME = re.compile(r'No value with name "(.*)" found in Activation')
_MISSING_KEY = re.compile(r'Key not found in map : "?(.*?)"?$')
_NO_OVERLOAD = "No matching overloads found : "


class SyntaxFault(ValueError):
    """An expression that cannot be parsed: `reason`, and the 1-based `line` and `column` where known."""

    def __init__(self, reason: str, line: int | None = None, column: int | None = None) -> None:
        super().__init__(reason if line is None else f"{reason} at line {line}, column {column}")
        self.reason, self.line, self.column = reason, line, column


def compile_expression(source: Any, path: str) -> Expression:
    """The compiled form of `source`. Raises Invalid with the position for what is no CEL."""
    try:
        return parse(source)
    except SyntaxFault as fault:
        raise Invalid([FieldError(path, str(fault))]) from None


def parse(source: Any) -> Expression:
    """The compiled form of `source`, from a bounded cache. Raises SyntaxFault."""
    if not isinstance(source, str) or not source.strip():
        raise SyntaxFault("must be a CEL expression, a string that is not empty")
    try:
        length = len(source.encode())
    except UnicodeEncodeError:
        raise SyntaxFault("is not Unicode text") from None
    if length > MAX_SOURCE_BYTES:
        raise SyntaxFault(f"is longer than {MAX_SOURCE_BYTES} bytes")
    return _cached(source)


class Expression:
    """A compiled expression. Immutable and safe to share between threads."""

    def __init__(self, source: str) -> None:
        self.source = source
        found = list(lexing.tokens(source))
        #: The variables it may ask for.
        self.names = lexing.root_names(found)
        self._selection = lexing.selection(found)
        self._comparisons = lexing.comparisons(found)
        self._builds_lists = any(token.text in ("map", "filter") for token in found)
        self._growth = growth_of(found)
        #: Whether it may ask lookup tables.
        self.looks_up = self._growth.looks_up
        self._program = _compile(_environment(timed=False), source)
        # Only a declared variable may hold a point in time, and `now` is the only one that does.
        self._timed = _compile(_environment(timed=True), source) if "now" in self.names else None

    def evaluate(self, variables: Mapping[str, Any]) -> Any:
        """The result as JSON. Raises ExpressionError, an unknown name included.

        `variables` hold JSON; `now` may be an aware datetime. Timestamps come back as RFC 3339 text,
        durations as text like `1.5s`, bytes as base64.
        """
        if self._selection is not None and self._selection[0] in variables:
            return self._select(self._selection, variables)
        if self._comparisons is not None and (answer := _compared(self._comparisons, variables)) is not None:
            return answer
        return self._run({name: variables[name] for name in self.names if name in variables})

    def _select(self, steps: tuple[str | int, ...], variables: Mapping[str, Any]) -> Any:
        value: Any = variables
        for step in steps:
            if not _has_step(value, step):
                raise self._error(_no_step(value, step))
            value = value[step]
        return to_wire(value) if isinstance(value, datetime) else value

    def _run(self, data: dict[str, Any]) -> Any:
        if self._builds_lists and max(_longest_list(data), self._growth.pieces(data)) > MAX_MAPPED_LIST:
            raise self._error(f"a list has more than {MAX_MAPPED_LIST} items, too many for map and filter")
        if self._growth.grows and self._growth.moved(data, self.source) > MAX_MOVED:
            raise self._error("it could make too much out of values of this size")
        program = self._timed if self._timed is not None and isinstance(data.get("now"), datetime) else self._program
        try:
            result = program.eval(data=data)
            if result.type() == cel.Type.ERROR:
                raise self._error(_readable(str(result.value())))
            return _to_json(result, _Budget())
        except (RuntimeError, TypeError, ValueError, OverflowError) as error:
            # The library's own ways out: a budget exceeded, a result such as an optional that Python has not.
            raise self._error(_readable(str(error))) from None

    def _error(self, reason: str) -> ExpressionError:
        shown = self.source if len(self.source) <= 100 else self.source[:99] + "…"
        return ExpressionError(f"{reason} in `{shown}`")


@lru_cache(maxsize=CACHE_SIZE)
def _cached(source: str) -> Expression:
    return Expression(source)


@lru_cache(maxsize=2)
def _environment(*, timed: bool) -> Any:
    return cel.NewEnv(
        variables={"now": cel.Type.TIMESTAMP} if timed else {},
        extensions=[
            ext_strings.ExtStrings(),
            ext_math.ExtMath(),
            ext_encoders.ExtEncoders(),
            ext_bindings.ExtBindings(),
            ext_optional.ExtOptional(),
            cel.CelExtension("mixed_arithmetic", list(_mixed_arithmetic())),
            cel.CelExtension("esb", list(functions.declarations())),
        ],
    )


def _mixed_arithmetic() -> Iterator[Any]:
    """JSON does not tell 3 from 3.0, plain CEL refuses `9.99 * 3`: between int and double, do it in double."""
    double, integer = cel.Type.DOUBLE, cel.Type.INT
    operations: dict[str, Callable[[float, float], float]] = {
        "_+_": lambda a, b: float(a) + float(b),
        "_-_": lambda a, b: float(a) - float(b),
        "_*_": lambda a, b: float(a) * float(b),
        "_/_": _divide,
    }
    for name, operation in operations.items():
        yield cel.FunctionDecl(
            name,
            [
                cel.Overload(f"mixed{name}double_int", double, [double, integer], impl=operation),
                cel.Overload(f"mixed{name}int_double", double, [integer, double], impl=operation),
            ],
        )


def _divide(a: float, b: float) -> float:
    """IEEE division, as CEL divides doubles."""
    if float(b) != 0:
        return float(a) / float(b)
    return math.nan if float(a) == 0 or math.isnan(a) else math.copysign(math.inf, a) * math.copysign(1, b)


def _compile(environment: Any, source: str) -> Any:
    try:
        return environment.compile(source, disable_check=True)
    except (RuntimeError, TypeError, ValueError) as error:
        raise _syntax_fault(str(error)) from None


def _syntax_fault(text: str) -> SyntaxFault:
    found = _POSITION.search(text)
    if found is None or int(found[1]) > MAX_SOURCE_BYTES:  # the library has no position for some limits
        reason = found[3] if found else _STATUS.sub("", text.splitlines()[0] if text else "cannot be parsed")
        return SyntaxFault(_TAG.sub("", reason))
    return SyntaxFault(found[3].split(" expecting ")[0], int(found[1]), int(found[2]))


def _readable(text: str) -> str:
    """The library's message in this bus's words."""
    text = _TAG.sub("", _STATUS.sub("", text)).strip()
    if unknown := _UNKNOWN_NAME.search(text):
        return f"unknown name {unknown[1]!r}"
    if missing := _MISSING_KEY.search(text):
        return f"no such key {missing[1]!r}"
    if text.startswith(_NO_OVERLOAD):
        return f"no such operation {text.removeprefix(_NO_OVERLOAD)}"
    if "convert function return value" in text:
        return "the result is not a JSON value"
    return text.splitlines()[0] if text else "evaluation failed"


def _has_step(value: Any, step: str | int) -> bool:
    if isinstance(value, dict):  # asked first: whether something is a Mapping takes five times as long to find out
        return step in value
    if isinstance(value, list):
        return isinstance(step, int) and step < len(value)
    return isinstance(value, Mapping) and step in value


def _no_step(value: Any, step: str | int) -> str:
    if isinstance(value, list) and isinstance(step, int):
        return f"index {step} is outside a list of {len(value)}"
    if isinstance(value, Mapping):
        return f"no such key {step!r}"
    return f"cannot select {step!r} from a value that is not an object"


def _compared(comparisons: list[lexing.Comparison], variables: Mapping[str, Any]) -> bool | None:
    """Whether all hold; None where that is for the library to say: what is missing or of another type."""
    unclear = False
    for steps, holds, literal in comparisons:
        value: Any = variables
        for step in steps:
            if not _has_step(value, step):
                value = None
                break
            value = value[step]
        kind = type(value)  # not isinstance: a bool is no number
        if kind is not type(literal) and (kind is not float or type(literal) is not int):
            unclear = True  # and yet the whole is false if another one is
        elif not holds(value, literal):
            return False
    return None if unclear else True


class _Budget:
    __slots__ = ("characters", "values")

    def __init__(self) -> None:
        self.values, self.characters = MAX_RESULT_VALUES, MAX_RESULT_TEXT

    def spend(self) -> None:
        self.values -= 1
        if self.values < 0:
            raise ValueError(f"the result has more than {MAX_RESULT_VALUES} values")

    def spend_text(self, text: str) -> None:
        self.characters -= len(text)
        if self.characters < 0:
            raise ValueError(f"the result has more than {MAX_RESULT_TEXT} characters")


def _to_json(result: Any, budget: _Budget) -> Any:
    """A CEL value as JSON, level by level so that the budget stops what the library would unfold without end."""
    budget.spend()
    value = result.value()
    if isinstance(value, list):
        return [_to_json(item, budget) for item in value]
    if isinstance(value, dict):
        # CEL does not keep the order of keys; a sorted one is at least the same every time.
        return {key: _to_json(item, budget) for key, item in sorted((_key(k), v) for k, v in value.items())}
    scalar = _scalar_to_json(value)
    if isinstance(scalar, str):
        budget.spend_text(scalar)
    return scalar


def _scalar_to_json(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"the result {value} is not a JSON number")
    if isinstance(value, (bytes, bytearray)):
        return base64.b64encode(value).decode()
    if isinstance(value, datetime):
        return to_wire(value)
    if isinstance(value, timedelta):
        return _duration(value)
    if value is None or isinstance(value, (str, bool, int, float)):
        return value
    raise ValueError("the result is not a JSON value")


def _key(key: Any) -> str:
    if isinstance(key, bool):
        return "true" if key else "false"
    return str(key)


def _duration(value: timedelta) -> str:
    micros = value // timedelta(microseconds=1)
    seconds, fraction = divmod(abs(micros), 1_000_000)
    text = f"{seconds}.{fraction:06d}".rstrip("0").rstrip(".")
    return f"{'-' if micros < 0 else ''}{text}s"


def _longest_list(value: Any) -> int:
    if isinstance(value, dict):
        return max(map(_longest_list, value.values()), default=0)
    if isinstance(value, list):
        inner = (_longest_list(item) for item in value if isinstance(item, (dict, list)))
        return max(len(value), max(inner, default=0))
    return 0
