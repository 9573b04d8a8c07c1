"""CEL over JSON: values in, values out, every fault an ExpressionError, and the facts about the library."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from esb_workers.errors import ExpressionError, Invalid
from esb_workers.expressions.cel import MAX_MAPPED_LIST, compile_expression, parse
from esb_workers.expressions.functions import Host, bound
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
        parse("l.map(a, l)").evaluate({"l": [0] * 1000})
    assert time.monotonic() - started < 5


LONG = "x" * 1_000_000


@pytest.mark.parametrize(
    ("source", "data"),
    [
        ("cel.bind(a, " * 40 + "'x' + 'x'" + ", a + a)" * 40, {}),
        ("".join(f"cel.bind(v{n}, v{n - 1} + v{n - 1}, " for n in range(1, 60)) + "v59" + ")" * 59, {"v0": "xx"}),
        ("['xxxxxxxxxx']" + ".map(a, a + a)" * 100, {}),
        ("[['x']]" + ".map(a, [a, a])" * 50, {}),
        ("[1]" + ".map(a, a)" * 3 + " + [1]" * 600, {}),
        ("'x'" + ".replace('x', 'xxxxxxxxxx')" * 100, {}),
        ("t.replace('x', t)", {"t": LONG}),
        ("t.replace('x', 'y' + t)", {"t": LONG}),
        ("t.split('').join(t)", {"t": LONG}),
        ("t.split('').map(a, t + a)", {"t": LONG}),
        ("l.map(a, t + t)", {"l": [1] * 4000, "t": LONG}),
        ("l.exists(a, (t + t) == a)", {"l": [1] * 4000, "t": LONG}),
        ("l.map(a, t)", {"l": [1] * 4000, "t": LONG}),
        (" + ".join(["t"] * 1000), {"t": LONG}),
        ("'%s%s%s'.format([t, t, t])" + ".replace(t, t)", {"t": LONG}),
        ("t.matches('^(a+)+$') || t.matches('(x*)*y')", {"t": LONG}),
        ("t.split('').map(a, a)", {"t": LONG}),
        ("l.map(a, l.map(b, l.map(c, t)))", {"l": [1] * 4000, "t": LONG}),
        ("t.split('').filter(a, a == 'y').map(a, a)", {"t": LONG}),
        ("t.split(t.substring(0, 0)).map(a, a)", {"t": LONG}),
        ("hash(l.map(a, t))", {"l": [1] * 50, "t": LONG}),
        ("[['x']]" + ".map(a, [a, a])" * 12 + ".map(b, hash([b, b]))", {}),
        ("cel.bind(a, " * 30 + "[1]" + ", [a, a])" * 30 + " == [1]", {}),
    ],
)
def test_no_expression_stalls_a_worker(source: str, data: dict[str, Any]) -> None:
    code = (
        "import json, sys, resource\n"
        "from esb_workers.errors import ExpressionError\n"
        "from esb_workers.expressions.cel import SyntaxFault, parse\n"
        "source, data = json.load(sys.stdin)\n"
        "before = resource.getrusage(resource.RUSAGE_SELF)\n"
        "try:\n    parse(source).evaluate(data)\n"
        "except (ExpressionError, SyntaxFault): pass\n"
        "after = resource.getrusage(resource.RUSAGE_SELF)\n"
        "print(after.ru_utime - before.ru_utime, (after.ru_maxrss - before.ru_maxrss) // 1024)"
    )
    run = subprocess.run(
        [sys.executable, "-c", code],
        input=json.dumps([source, data]),
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    seconds, mebibytes = map(float, run.stdout.split())
    assert seconds < 5
    assert mebibytes < 1200


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("payload.first + ' ' + payload.last", "Ada Lovelace"),
        ("payload.lines.map(l, l.sku + '-' + string(l.n)).join(', ')", ", ".join(f"s{n}-{n}" for n in range(300))),
        ("payload.text.replace('y', 'xx').size()", 30_000),
        ("payload.text.replace(payload.first, payload.last).size()", 30_000),
        ("payload.csv.split(',').map(x, x + '!').size()", 200),
        ("'%s %s'.format([payload.first, payload.text]).size()", 30_004),
        ("cel.bind(name, payload.first + payload.last, name + name)", "AdaLovelaceAdaLovelace"),
    ],
)
def test_what_people_write_is_well_within_the_bounds(source: str, expected: Any) -> None:
    payload = {"first": "Ada", "last": "Lovelace", "text": "x" * 30_000, "csv": ",".join(["abcdef"] * 200)}
    if "replace(payload" in source:
        payload["text"] = "x" * 10_000
        expected = 10_000
    lines = [{"sku": f"s{n}", "n": n} for n in range(300)]
    assert parse(source).evaluate({"payload": payload | ({"lines": lines} if "lines" in source else {})}) == expected


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("hash('abc')", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"),
        ("hash(b'abc') == hash('abc')", True),
        ("hash('abc', 'md5')", "900150983cd24fb0d6963f7d28e17f72"),
        ("hash({'b': [1, {'c': null}], 'a': 2.5}) == hash('{\"a\":2.5,\"b\":[1,{\"c\":null}]}')", True),
        ("base64.encode('äb')", "w6Ri"),
        ("string(base64.decode(base64.encode('äb')))", "äb"),
        ("formatTime(now, '%Y-%m-%d %H:%M')", "2026-01-31 08:00"),
        ("formatTime(now, '%H:%M %Z', 'Europe/Berlin')", "09:00 CET"),
        ("formatTime('2026-07-01T00:30:00+02:00', '%d.%m.%y')", "30.06.26"),
        ("parseTime('31.01.2026', '%d.%m.%Y')", "2026-01-31T00:00:00.000Z"),
        (
            "parseTime('31.01.2026 01:00', '%d.%m.%Y %H:%M', 'Europe/Berlin') + duration('1h')",
            "2026-01-31T01:00:00.000Z",
        ),
        ("parseTime('2026-01-31 +0500', '%Y-%m-%d %z') < now", True),
        ("uuid() != uuid() && uuid().size() == 36", True),
        ("lookup('regions', 'eu')", "Europe"),
        ("lookup('regions', payload.count).name", "three"),
        ("lookup('regions', 'xx', 'none')", "none"),
        ("lookup('regions', 'xx', {'a': [1]}).a[0]", 1),
        ("lookup('regions', 'list').map(x, x + 1)", [2, 3]),
    ],
)
def test_the_function_library(source: str, expected: Any) -> None:
    tables = {"regions": {"eu": "Europe", "3": {"name": "three"}, "list": [1, 2]}}
    with bound(Host(tables=tables)):
        assert parse(source).evaluate(CONTEXT) == expected


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("hash('a', 'crc32')", "hash\\(\\) knows sha256"),
        ("formatTime(now, '%Q')", "'%Q' is no directive"),
        ("formatTime(now, '%')", "is no directive"),
        ("formatTime(now, '%Y', 'Mars/Olympus')", "no time zone 'Mars/Olympus'"),
        ("formatTime(now, '%Y', '../../etc/passwd')", "no time zone"),
        ("formatTime('yesterday', '%Y')", "yesterday"),
        ("parseTime('x', '%Y')", "does not match"),
        ("lookup('nope', 'a')", "no lookup table 'nope'"),
        ("lookup('regions', 'xx')", "has no key 'xx'"),
        ("lookup('regions', [1])", "is text, a whole number or a boolean"),
        ("lookup(5, 'a')", "no such operation"),
    ],
)
def test_a_fault_in_a_function_says_what_is_wrong(source: str, reason: str) -> None:
    with bound(Host(tables={"regions": {}})), pytest.raises(ExpressionError, match=reason):
        parse(source).evaluate({"now": NOW})


def test_what_functions_need_from_outside_is_what_was_bound() -> None:
    with pytest.raises(ExpressionError, match="no lookup tables here"):
        parse("lookup('regions', 'eu')").evaluate({})
    with bound(Host(new_uuid=lambda: "fixed")):
        assert parse("uuid()").evaluate({}) == "fixed"


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
# PostgreSQL keeps no NUL, so no payload has one: it is refused where it would come in.
TEXTS = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=5)
SCALARS = st.none() | st.booleans() | st.integers(-(2**53), 2**53) | TEXTS
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


VALUES = SCALARS | st.floats(allow_nan=False, allow_infinity=False) | st.sampled_from([2**63 - 1, -(2**63), [], {}])
LITERALS = st.integers(0, 999_999_999).map(str) | st.sampled_from(["''", "'a'", '"é"', "'\U0001f600'", "'\uffff'"])
COMPARISONS = st.tuples(st.sampled_from("abc"), st.sampled_from(["==", "!=", "<", "<=", ">", ">="]), LITERALS)


@given(st.dictionaries(st.sampled_from("ab"), VALUES), st.lists(COMPARISONS, min_size=1, max_size=3))
def test_comparing_here_is_comparing_in_cel(payload: dict[str, Any], compared: list[tuple[str, str, str]]) -> None:
    parts = [f"payload.{name} {sign} {literal}" for name, sign, literal in compared]
    here, there = parse(" && ".join(parts)), parse(" && ".join(f"({part})" for part in parts))

    def outcome(expression: Any) -> Any:
        try:
            return expression.evaluate({"payload": payload})
        except ExpressionError as error:
            return error.detail.rpartition(" in `")[0]

    assert outcome(here) == outcome(there)


@given(st.text(max_size=30))
def test_any_text_is_an_expression_or_refused(source: str) -> None:
    try:
        parse(source).evaluate({})
    except (ValueError, ExpressionError):
        pass
