"""CEL over JSON: values in, values out, every fault an ExpressionError, and the facts about the library."""

from __future__ import annotations

import threading
import time
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from esb_workers.errors import ExpressionError, Invalid
from esb_workers.expressions.cel import MAX_MAPPED_LIST, compile_expression, parse
from esb_workers.expressions.lexing import RESERVED

NOW = datetime(2026, 1, 31, 8, 0, 0, 123000, tzinfo=UTC)
CONTEXT: dict[str, Any] = {
    "payload": {"total": 12.5, "count": 3, "lines": [{"sku": "a", "n": 2}, {"sku": "b", "n": 3}], "none": None},
    "headers": {"eventType": "user.created", "x-a": "1"},
    "type": "order",
    "list": [1, 2],
    "string": "s",
    "context": {"package": 7, "a-b": 8},
    "now": NOW,
}


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("1 + 1", 2),
        ("payload.total", 12.5),
        ("payload.lines[1].sku", "b"),
        ("payload['lines'][0][\"n\"]", 2),
        ("payload.none", None),
        ("payload.lines", CONTEXT["payload"]["lines"]),
        ("headers['x-a'] == '1'", True),
        ("payload.total > 10 && headers.eventType.startsWith('user.')", True),
        ("payload.count == 3.0", True),
        # JSON does not tell 3 from 3.0
        ("9.99 * 3", 29.97),
        ("3 * payload.total", 37.5),
        ("payload.total - payload.count", 9.5),
        ("1 + 0.5", 1.5),
        ("1 / 2.0", 0.5),
        ("1 / 2", 0),
        # names that would break a declared environment
        ("type", "order"),
        ("type == 'order' && list[0] == 1 && string == 's'", True),
        ("context['package'] + context['a-b']", 15),
        # macros and extensions
        ("payload.lines.map(l, l.n)", [2, 3]),
        ("payload.lines.filter(l, l.n > 2)[0].sku", "b"),
        ("payload.lines.exists(l, l.sku == 'a')", True),
        ("payload.lines.all(l, l.n > 2)", False),
        ("has(payload.nope)", False),
        ("payload.?nope.orValue('x')", "x"),
        ("'a,b'.split(',')", ["a", "b"]),
        ("'%s-%d'.format(['x', 5])", "x-5"),
        ("'Ab'.lowerAscii() + ' x '.trim()", "abx"),
        ("math.greatest(1, 5)", 5),
        ("cel.bind(x, payload.count, x * x)", 9),
        ("base64.encode(b'abc')", "YWJj"),
        ("'é😀'.size()", 2),
        # back to plain JSON
        ("{'b': 1, 'a': [true, null]}", {"a": [True, None], "b": 1}),
        ("{2: 'x', true: 'y'}", {"2": "x", "true": "y"}),
        ("b'abc'", "YWJj"),
        ("duration('1.5s')", "1.5s"),
        ("duration('-90m')", "-5400s"),
        ("timestamp('2024-01-01T01:00:00+01:00')", "2024-01-01T00:00:00.000Z"),
        ("now", "2026-01-31T08:00:00.123Z"),
        ("now > timestamp('2024-01-01T00:00:00Z')", True),
        ("now + duration('1h')", "2026-01-31T09:00:00.123Z"),
        ("string(now) + '!'", "2026-01-31T08:00:00.123Z!"),
        ("5u", 5),
        ("true || nope", True),
    ],
)
def test_an_expression_gives_plain_json(source: str, expected: Any) -> None:
    result = parse(source).evaluate(CONTEXT)
    assert result == expected and type(result) is type(expected)


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("nope", "unknown name 'nope'"),
        ("nope == 1", "unknown name 'nope'"),
        ("payload.nope", "no such key 'nope'"),
        ("payload.nope + 1", "no such key 'nope'"),
        ("payload.lines[9]", "index 9 is outside"),
        ("payload.lines.sku", "cannot select"),
        ("payload.total.x", "cannot select"),
        ("'a' + 1", "no such operation"),
        ("undefined(1)", "no such operation"),
        ("1 / 0", "divide by zero"),
        ("1.0 / 0", "not a JSON number"),
        ("int('x')", "cannot convert"),
        ("9223372036854775807 + 1", "overflow"),
        ("optional.of(1)", "not a JSON value"),
        ("'x'.matches('(')", "regular expression"),
        ("string", "not a JSON value"),
    ],
)
def test_a_fault_at_run_time_is_an_expression_error(source: str, reason: str) -> None:
    with pytest.raises(ExpressionError, match=reason):
        parse(source).evaluate({"payload": CONTEXT["payload"]})


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("1 +", "at line 1, column 4"),
        ("a ==\n  == b", "at line 2, column 3"),
        ("package", "reserved identifier"),
        ("has(x)", "column 5"),
        ("", "not empty"),
        ("  ", "not empty"),
        (5, "must be a CEL expression"),
        (None, "must be a CEL expression"),
        ("'" + "x" * 5000 + "'", "longer than 4096 bytes"),
        ("(" * 200 + "1" + ")" * 200, "recursion"),
        ("\ud800", "Unicode"),
    ],
)
def test_bad_syntax_is_refused_with_its_position(source: Any, reason: str) -> None:
    with pytest.raises(Invalid, match=reason) as caught:
        compile_expression(source, "filter")
    assert caught.value.errors[0].path == "filter"


def test_a_selection_keeps_the_order_of_keys_and_large_integers() -> None:
    value = {"z": 2**63 - 1, "a": {"y": 1, "b": 2}}
    assert list(parse("payload.inner").evaluate({"payload": {"inner": value}})) == ["z", "a"]
    assert parse("payload").evaluate({"payload": 2**63 - 1}) == 2**63 - 1


def test_only_the_names_of_an_expression_are_asked_for() -> None:
    expression = parse("payload.headers.size() + items.map(i, i.source)[0] + r'\"'")
    assert expression.names == {"payload", "items", "map", "i", "size"} - {"map", "size"}
    assert parse(".x + y.?z.w").names == {"x", "y"}


def test_nested_loops_end_within_their_budget() -> None:
    started = time.monotonic()
    with pytest.raises(ExpressionError, match="budget"):
        parse("l.all(a, l.all(b, l.all(c, true)))").evaluate({"l": list(range(300))})
    with pytest.raises(ExpressionError, match="too many for map"):
        parse("l.map(a, a)").evaluate({"l": [0] * (MAX_MAPPED_LIST + 1)})
    with pytest.raises(ExpressionError, match="more than 100000 values"):
        parse("[[1]]" + ".map(a, [a, a])" * 25).evaluate({})
    assert time.monotonic() - started < 5


def test_expressions_are_compiled_once_and_run_in_many_threads() -> None:
    expression = parse("payload.n * 2 + 1")
    assert parse("payload.n * 2 + 1") is expression
    wrong: list[int] = []

    def run(start: int) -> None:
        wrong.extend(n for n in range(start, start + 500) if expression.evaluate({"payload": {"n": n}}) != n * 2 + 1)

    threads = [threading.Thread(target=run, args=(i * 1000,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


KEYS = st.from_regex(r"[a-z]{1,3}", fullmatch=True).filter(lambda key: key not in RESERVED)
SCALARS = st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=5)
TREES = st.recursive(SCALARS, lambda t: st.lists(t, max_size=3) | st.dictionaries(KEYS, t, max_size=3), max_leaves=10)


@given(st.dictionaries(KEYS, TREES, max_size=3), st.lists(KEYS | st.integers(0, 2), max_size=3))
def test_selecting_here_is_selecting_in_cel(payload: dict[str, Any], steps: list[str | int]) -> None:
    path = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in steps)
    here, there = parse(f"payload{path}"), parse(f"(payload{path})")

    def outcome(expression: Any) -> Any:
        try:
            return expression.evaluate({"payload": payload})
        except ExpressionError:
            return ExpressionError

    assert outcome(here) == outcome(there)


@given(st.text(max_size=30))
def test_any_text_is_an_expression_or_refused(source: str) -> None:
    try:
        parse(source).evaluate({})
    except (ValueError, ExpressionError):
        pass
