"""What alternatives of a pattern say of single values: numbers, texts, addresses, and what goes beyond AWS."""

from __future__ import annotations

import time
from typing import Any

import pytest

from esb_workers.errors import Invalid
from esb_workers.expressions.patterns import compile_conditions

NUMBERS: list[tuple[Any, Any, bool]] = [
    (300, 300.0, True),
    (3.0e2, 300, True),
    (0.1, 0.1000004, True),  # six places after the point
    (0.1, 0.100002, False),
    (-0.0, 0, True),
    (123456789012, 123456789012, True),  # beyond the range a number is what is written
    (123456789012, 123456789013, False),
    (123456789012, 123456789012.0, False),
    ({"numeric": ["=", 0.1]}, 0.1000004, True),
    ({"numeric": [">", 5]}, 5.0000001, False),
    ({"numeric": [">", 5]}, 5.000001, True),
    ({"numeric": ["<=", 5e9]}, 5_000_000_000, True),
    ({"numeric": [">", 0]}, 5_000_000_001, False),
    ({"numeric": ["<", 0]}, -5_000_000_001, False),
    ({"numeric": [">=", -5e9]}, -5_000_000_000, True),
    ({"numeric": ["=", 0.30000000000000004]}, 0.3, True),
    ({"numeric": [">", 0, "<", 5]}, 5, False),
    ({"numeric": [">=", 0, "<", 5]}, 0, True),
    ({"numeric": [">", 0]}, True, False),
    ({"numeric": [">", 0]}, None, False),
    ({"numeric": [">", 0]}, [-1, "x", 2], True),
    ({"numeric": [">", 0]}, {"x": 2}, False),
    ({"anything-but": 5}, 5.0000001, False),
    ({"anything-but": 5}, 5_000_000_001, True),
    ({"anything-but": 5}, False, True),
    ({"anything-but": [1, 2]}, [1, 2], False),
    ({"anything-but": [1, 2]}, [1, 3], True),
]


@pytest.mark.parametrize(("alternative", "value", "expected"), NUMBERS)
def test_numbers_compare_to_six_places_within_five_billion(alternative: Any, value: Any, expected: bool) -> None:
    assert compile_conditions({"a": [alternative]}).matches({"a": value}) is expected


VALUES: list[tuple[list[Any], Any, bool]] = [
    ([True], "true", False),
    (["true"], True, False),
    ([False], 0, False),
    ([None], "null", False),
    ([None], [], False),
    ([None], [None], True),
    ([""], "", True),
    ([""], None, False),
    (["a"], [["b"], ["a"]], True),
    (["a"], {"a": "a"}, False),
    ([{"prefix": ""}], 5, False),
    ([{"suffix": ""}], "x", True),
    ([{"prefix": "ä"}], "ähm", True),
    ([{"prefix": {"equals-ignore-case": "Ä"}}], "ähm", True),
    ([{"equals-ignore-case": "straße"}], "STRASSE", False),
    ([{"equals-ignore-case": "5"}], 5, False),
    ([{"equals-ignore-case": ""}], "", True),
    ([{"anything-but": ""}], "", False),
    ([{"anything-but": ""}], "x", True),
    ([{"anything-but": "a"}], {"b": "a"}, False),
    ([{"anything-but": {"prefix": "a"}}], ["ab", "b"], True),
    ([{"anything-but": {"prefix": "a"}}], ["ab", "ac"], False),
    ([{"anything-but": {"prefix": "a"}}], None, True),
    ([{"anything-but": {"suffix": "a"}}], 5, True),
    ([{"anything-but": {"equals-ignore-case": ["A", "B"]}}], "b", False),
    ([{"anything-but": {"wildcard": "*a*"}}], True, True),
    ([{"anything-but": {"wildcard": ["*a", "b*"]}}], "bar", False),
    ([{"anything-but": "x"}, "x"], "x", True),
    ([{"wildcard": "a*"}], "a", True),
    ([{"wildcard": "*a"}], "ba\na", True),
    ([{"wildcard": "a*a"}], "a", False),
    ([{"wildcard": "\\*"}], "*", True),
    ([{"wildcard": "\\*"}], "x", False),
    ([{"wildcard": "\\**"}], "*x", True),
    ([{"wildcard": "\\\\*"}], "\\x", True),
    ([{"wildcard": "a*b*c*d*e*f*g"}], "a1b2c3d4e5f6g", True),
    ([{"cidr": "10.0.0.0/8"}], ["192.168.0.1", "10.9.9.9"], True),
    ([{"cidr": "0.0.0.0/0"}], "1.2.3.4", True),
    ([{"cidr": "::/0"}], "1.2.3.4", False),
    ([{"cidr": "2001:DB8::/33"}], "2001:db8:7fff::1", True),
    ([{"cidr": "10.0.0.0/8"}], "10.0.0.0/8", False),
    ([{"cidr": "10.0.0.0/8"}], 10, False),
    (["::1"], "0:0:0:0:0:0:0:1", True),
    (["10.0.0.1"], "10.0.0.10", False),
    ([{"exactly": "10.0.0.1"}], "10.0.0.1", True),
    ([{"exists": True}], [[]], False),
    ([{"exists": True}], [None], True),
    ([{"exists": True}], {}, False),
    ([{"exists": False}], {"b": 1}, True),
    ([{"exists": False}], [], True),
    ([{"exists": False}], None, False),
    ([{"exists": False}, {"prefix": "x"}], "xy", True),
    # extensions
    ([{"regex": "^ord-[0-9]+$"}], "ord-17", True),
    ([{"regex": "^ord-[0-9]+$"}], "ord-17x", False),
    ([{"regex": "b"}], "abc", True),
    ([{"regex": "5"}], 5, False),
    ([{"not": "x"}], "y", True),
    ([{"not": "x"}], 5, True),
    ([{"not": {"numeric": [">", 5]}}], 5, True),
    ([{"not": {"regex": "^a"}}], ["ab", "b"], True),
    ([{"all": [{"prefix": "a"}, {"suffix": "z"}]}], "abz", True),
    ([{"all": [{"prefix": "a"}, {"suffix": "z"}]}], ["ab", "bz"], False),
    ([{"all": [{"prefix": "a"}, {"not": {"all": [{"suffix": "z"}, {"wildcard": "*q*"}]}}]}], "aqz", False),
]


@pytest.mark.parametrize(("alternatives", "value", "expected"), VALUES)
def test_alternatives_decide_about_values(alternatives: list[Any], value: Any, expected: bool) -> None:
    conditions = compile_conditions({"a": alternatives})
    assert conditions.matches({"a": value}) is expected
    assert (conditions.explain({"a": value}) == []) is expected


@pytest.mark.parametrize(
    ("alternative", "path", "reason"),
    [
        ({"regex": "(?=a)"}, ".regex", "not a regular expression"),
        ({"regex": "a" * 1001}, ".regex", "longer than 1000"),
        ({"regex": "((a{1,1000}){1,1000}){1,1000}"}, ".regex", "not a regular expression"),
        ({"regex": 5}, ".regex", "must be a string"),
        ({"all": []}, ".all", "non-empty list"),
        ({"all": "x"}, ".all", "non-empty list"),
        ({"all": ["x", {"numeric": ["?", 1]}]}, ".all[1].numeric[0]", "must be one of"),
        ({"not": {"exists": True}}, ".not", "not supported"),
        ({"not": ["x"]}, ".not", "must be a string, a number"),
        ({"not": {"prefix": 5}}, ".not.prefix", "must be a string"),
    ],
)
def test_faults_of_the_extensions_have_path_and_reason(alternative: Any, path: str, reason: str) -> None:
    with pytest.raises(Invalid) as caught:
        compile_conditions({"a": [alternative]})
    assert caught.value.errors[0].path == f"conditions.a[0]{path}"
    assert reason in caught.value.errors[0].message


def test_alternatives_do_not_nest_without_end() -> None:
    nested: Any = "x"
    for _ in range(9):
        nested = {"not": nested}
    with pytest.raises(Invalid, match="nests deeper"):
        compile_conditions({"a": [nested]})


def test_names_of_extensions_may_be_fields_as_at_aws() -> None:
    assert compile_conditions({"$or": [{"all": ["x"]}, {"not": ["y"]}]}).matches({"not": "y"})


def test_a_hard_regex_takes_no_longer_than_an_easy_one() -> None:
    conditions = compile_conditions({"a": [{"regex": "^(a+)+$"}]})
    started = time.monotonic()
    assert not conditions.matches({"a": "a" * 100_000 + "b"})
    assert time.monotonic() - started < 5
