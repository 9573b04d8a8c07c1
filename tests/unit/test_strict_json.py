"""Request bodies: what is JSON, what is not, and what could not be kept."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from esb_workers.errors import Malformed
from esb_workers.strictjson import MAX_DEPTH, parse_json

values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(1 << 63), (1 << 63) - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")),
    lambda inner: (
        st.lists(inner)
        | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")), inner)
    ),
    max_leaves=20,
)


@given(values)
def test_any_json_value_is_read_as_it_is(value: object) -> None:
    assert parse_json(json.dumps(value).encode()) == value
    assert parse_json(json.dumps(value, ensure_ascii=False).encode()) == value


@pytest.mark.parametrize(
    "raw",
    [
        b"", b" ", b"{", b"{}x", b"[1,]", b"{'a':1}", b"{a:1}", b"01", b"[1.]", b"+1", b"nul", b"\xef\xbb\xbf{}",
        b"NaN", b"[Infinity]", b"-Infinity", b"[1e400]", b"[-1e400]", b"1" + b"0" * 400 + b".0",
        rb'"\u0000"', rb'{"\u0000": 1}', rb'["a\u0000b"]', b'"\x00"', b'"a\nb"', rb'"\x"',
        rb'"\ud800"', rb'"\udc00"', rb'"\ud800a"', b'"\xff"', b'"\xed\xa0\x80"',
        b'{"a":1,"a":2}', rb'{"a":1,"\u0061":2}', b'[{"x":{"b":1,"b":1}}]',
        b"9223372036854775808", b"-9223372036854775809", b"[1, 99999999999999999999999]",
    ],
)  # fmt: skip
def test_what_is_no_json_or_could_not_be_kept_is_malformed(raw: bytes) -> None:
    with pytest.raises(Malformed) as error:
        parse_json(raw)
    assert error.value.specific_code == "malformed_json"


@pytest.mark.parametrize(
    ("raw", "value"),
    [
        (b"9223372036854775807", 2**63 - 1),
        (b"-9223372036854775808", -(2**63)),
        (b"1234567890123456789012.5", 1234567890123456789012.5),
        (b"1e300", 1e300),
        (b"1e-400", 0.0),
        (rb'"\\u0000"', "\\u0000"),
        (rb'"\ud83d\ude00"', "\U0001f600"),
        (b'{"b":1,"a":{"b":1}}', {"b": 1, "a": {"b": 1}}),
    ],
)
def test_what_only_looks_dangerous_is_read(raw: bytes, value: object) -> None:
    assert parse_json(raw) == value


@pytest.mark.parametrize(
    ("opening", "inner", "closing"), [(b"[", b"", b"]"), (b'{"a":', b"1", b"}"), (b"[", b"0", b"]")]
)
def test_nesting_ends_at_the_limit(opening: bytes, inner: bytes, closing: bytes) -> None:
    parse_json(opening * MAX_DEPTH + inner + closing * MAX_DEPTH)
    with pytest.raises(Malformed):
        parse_json(opening * (MAX_DEPTH + 1) + inner + closing * (MAX_DEPTH + 1))
    parse_json(b"[" + b"[]," * 500 + b"[]]")  # wide is not deep


@pytest.mark.parametrize("text", ["]", "[", "}{", '"', "\\", '\\"', '"]', '\\"]"['])
def test_brackets_and_quotes_inside_strings_hide_no_nesting_and_add_none(text: str) -> None:
    wide = [text] * 500
    assert parse_json(json.dumps(wide).encode()) == wide
    deep: object = 0
    for _ in range(MAX_DEPTH):
        deep = [text, deep, text]
    assert parse_json(json.dumps(deep).encode()) == deep
    with pytest.raises(Malformed):
        parse_json(json.dumps([text, deep, text]).encode())


def test_what_looks_like_a_large_number_inside_a_string_is_text() -> None:
    words = ["9" * 30, "1e999", 'a"9999999999999999999', "6f1e9990-1111-4e22-8222-123456789012"]
    assert parse_json(json.dumps(words).encode()) == words
    with pytest.raises(Malformed):
        parse_json(json.dumps([*words, 10**19]).encode())


def test_keys_keep_their_order() -> None:
    assert list(parse_json(b'{"z":1,"a":2,"m":3}')) == ["z", "a", "m"]
