"""Event patterns: the documented cases of Amazon EventBridge, and what a bus adds to them."""

from __future__ import annotations

import time
from typing import Any

import pytest

from esb_workers.errors import Invalid
from esb_workers.expressions.patterns import compile_conditions
from esb_workers.expressions.patterns.values import wildcard

EVENT: dict[str, Any] = {
    "version": "0",
    "detail-type": "EC2 Instance State-change Notification",
    "source": "aws.ec2",
    "time": "2017-12-22T18:43:48Z",
    "resources": ["arn:aws:ec2:us-west-1:123456789012:instance/i-1", "arn:aws:ec2:us-west-1:123456789012:instance/i-2"],
    "detail": {
        "state": "running",
        "c-count": 5,
        "d-count": 3,
        "x-limit": 301.8,
        "source-ip": "10.0.0.33",
        "ip6": "2001:db8:0:0:0:0:0:1",
        "file": "dir/photo.PNG",
        "empty": "",
        "none": None,
        "flag": True,
        "list": [],
        "nothing": [None],
        "text": "5",
        "json": '{"a": 1}',
        "inner": {"status": {"code": 200}},
    },
}

MATCHES: list[tuple[dict[str, Any], bool]] = [
    ({"source": ["aws.ec2"]}, True),
    ({"source": ["aws.s3", "aws.ec2"]}, True),
    ({"source": ["AWS.EC2"]}, False),
    ({"Source": ["aws.ec2"]}, False),
    ({"source": ["aws.ec2"], "detail": {"state": ["stopped"]}}, False),
    ({"resources": ["arn:aws:ec2:us-west-1:123456789012:instance/i-2"]}, True),
    ({"detail": {"c-count": [5]}}, True),
    ({"detail": {"c-count": [5.0]}}, True),
    ({"detail": {"c-count": ["5"]}}, False),
    ({"detail": {"text": [5]}}, False),
    ({"detail": {"flag": [True]}}, True),
    ({"detail": {"flag": [1]}}, False),
    ({"detail": {"c-count": [True]}}, False),
    ({"detail": {"none": [None]}}, True),
    ({"detail": {"nothing": [None]}}, True),
    ({"detail": {"list": [None]}}, False),
    ({"detail": {"missing": [None]}}, False),
    ({"detail": {"empty": [""]}}, True),
    ({"detail": {"json": {"a": [1]}}}, False),
    # dots and nesting are the same
    ({"detail.state": ["running"]}, True),
    ({"detail": {"inner.status": {"code": [200]}}}, True),
    ({"detail.inner": {"status.code": [200]}}, True),
    # prefix, suffix, equals-ignore-case
    ({"time": [{"prefix": "2017-12"}]}, True),
    ({"time": [{"prefix": "2018"}]}, False),
    ({"detail": {"c-count": [{"prefix": "5"}]}}, False),
    ({"detail": {"state": [{"prefix": ""}]}}, True),
    ({"detail": {"state": [{"prefix": {"equals-ignore-case": "RUN"}}]}}, True),
    ({"detail": {"file": [{"suffix": ".png"}]}}, False),
    ({"detail": {"file": [{"suffix": {"equals-ignore-case": ".png"}}]}}, True),
    ({"detail": {"state": [{"equals-ignore-case": "RUNNING"}]}}, True),
    ({"detail": {"state": [{"equals-ignore-case": "RUN"}]}}, False),
    # wildcard
    ({"detail": {"file": [{"wildcard": "dir/*.PNG"}]}}, True),
    ({"detail": {"file": [{"wildcard": "*"}]}}, True),
    ({"detail": {"file": [{"wildcard": "dir/photo.PNG*"}]}}, True),
    ({"detail": {"file": [{"wildcard": "dir"}]}}, False),
    ({"detail": {"file": [{"wildcard": ""}]}}, False),
    ({"detail": {"empty": [{"wildcard": ""}]}}, True),
    ({"detail": {"c-count": [{"wildcard": "*"}]}}, False),
    # anything-but
    ({"detail": {"state": [{"anything-but": "initializing"}]}}, True),
    ({"detail": {"state": [{"anything-but": "running"}]}}, False),
    ({"detail": {"state": [{"anything-but": ["stopped", "running"]}]}}, False),
    ({"detail": {"x-limit": [{"anything-but": [100, 200]}]}}, True),
    ({"detail": {"x-limit": [{"anything-but": 301.8}]}}, False),
    ({"detail": {"text": [{"anything-but": 5}]}}, True),
    ({"detail": {"missing": [{"anything-but": "x"}]}}, False),
    ({"detail": {"none": [{"anything-but": "x"}]}}, True),
    ({"detail": {"list": [{"anything-but": "x"}]}}, False),
    ({"resources": [{"anything-but": "arn:aws:ec2:us-west-1:123456789012:instance/i-1"}]}, True),
    ({"detail": {"state": [{"anything-but": {"prefix": "run"}}]}}, False),
    ({"detail": {"state": [{"anything-but": {"prefix": ["x", "init"]}}]}}, True),
    ({"detail": {"c-count": [{"anything-but": {"prefix": "5"}}]}}, True),
    ({"detail": {"file": [{"anything-but": {"suffix": [".PNG", ".jpg"]}}]}}, False),
    ({"detail": {"state": [{"anything-but": {"equals-ignore-case": ["RUNNING"]}}]}}, False),
    ({"detail": {"file": [{"anything-but": {"wildcard": "*/photo.*"}}]}}, False),
    ({"detail": {"file": [{"anything-but": {"wildcard": ["*.gif", "x*"]}}]}}, True),
    # numeric
    ({"detail": {"c-count": [{"numeric": [">", 0, "<=", 5]}]}}, True),
    ({"detail": {"c-count": [{"numeric": [">", 5]}]}}, False),
    ({"detail": {"x-limit": [{"numeric": ["=", 3.018e2]}]}}, True),
    ({"detail": {"d-count": [{"numeric": ["<", 10]}]}}, True),
    ({"detail": {"d-count": [{"numeric": [">=", 3]}]}}, True),
    ({"detail": {"text": [{"numeric": ["=", 5]}]}}, False),
    ({"detail": {"flag": [{"numeric": [">", 0]}]}}, False),
    # cidr
    ({"detail": {"source-ip": [{"cidr": "10.0.0.0/24"}]}}, True),
    ({"detail": {"source-ip": [{"cidr": "10.0.0.77/24"}]}}, True),
    ({"detail": {"source-ip": [{"cidr": "10.0.1.0/24"}]}}, False),
    ({"detail": {"ip6": [{"cidr": "2001:db8::/32"}]}}, True),
    ({"detail": {"ip6": [{"cidr": "0.0.0.0/0"}]}}, False),
    ({"detail": {"state": [{"cidr": "10.0.0.0/8"}]}}, False),
    ({"detail": {"ip6": ["2001:db8::1"]}}, True),
    # exists looks at leaves only
    ({"detail": {"state": [{"exists": True}]}}, True),
    ({"detail": {"none": [{"exists": True}]}}, True),
    ({"detail": {"missing": [{"exists": False}]}}, True),
    ({"detail": {"state": [{"exists": False}]}}, False),
    ({"detail": {"inner": [{"exists": True}]}}, False),
    ({"detail": {"inner": [{"exists": False}]}}, True),
    ({"detail": {"list": [{"exists": True}]}}, False),
    ({"detail": {"list": [{"exists": False}]}}, True),
    ({"detail": {"missing": ["x", {"exists": False}]}}, True),
    # several alternatives
    ({"detail": {"state": [{"prefix": "x"}, {"suffix": "ing"}]}}, True),
    # $or
    ({"$or": [{"source": ["x"]}, {"detail": {"state": ["running"]}}]}, True),
    ({"$or": [{"source": ["x"]}, {"detail": {"state": ["stopped"]}}]}, False),
    ({"source": ["aws.ec2"], "detail": {"$or": [{"c-count": [{"numeric": [">", 9]}]}, {"d-count": [3]}]}}, True),
    ({"source": ["x"], "$or": [{"version": ["0"]}, {"time": ["y"]}]}, False),
    (
        {"$or": [{"version": ["1"]}, {"version": ["0"], "$or": [{"source": ["x"]}, {"detail.state": ["running"]}]}]},
        True,
    ),
    ({"$or": [{"version": ["0"]}, {"version": ["1"]}], "detail": {"$or": [{"state": ["x"]}, {"state": ["y"]}]}}, False),
]


@pytest.mark.parametrize(("pattern", "expected"), MATCHES)
def test_a_pattern_matches_as_at_aws(pattern: dict[str, Any], expected: bool) -> None:
    conditions = compile_conditions(pattern)
    assert conditions.matches(EVENT) is expected
    assert (conditions.explain(EVENT) == []) is expected


EMPLOYEES = {
    "employees": [
        {"firstName": "John", "lastName": "Doe", "zip": 1},
        {"firstName": "Anna", "lastName": "Smith"},
        {"firstName": "Peter", "lastName": "Jones"},
    ]
}


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ({"employees": {"firstName": ["Anna"]}}, True),
        ({"employees": {"firstName": ["Anna"], "lastName": ["Smith"]}}, True),
        ({"employees": {"firstName": ["Anna"], "lastName": ["Jones"]}}, False),
        ({"employees": {"firstName": ["Anna", "Peter"], "lastName": ["Jones"]}}, True),
        ({"employees": {"firstName": ["Anna"], "zip": [{"exists": False}]}}, True),
        ({"employees": {"firstName": ["John"], "zip": [{"exists": False}]}}, False),
        ({"employees": {"zip": [{"exists": False}]}}, False),
    ],
)
def test_fields_match_within_one_element_of_an_array(pattern: dict[str, Any], expected: bool) -> None:
    assert compile_conditions(pattern).matches(EMPLOYEES) is expected
    nested = {"employees": [EMPLOYEES["employees"][:1], EMPLOYEES["employees"][1:]]}
    assert compile_conditions(pattern).matches(nested) is expected


def test_elements_of_different_arrays_combine_freely() -> None:
    event = {"a": [{"x": 1, "b": [{"y": 1}, {"y": 2}]}, {"x": 2, "b": [{"y": 3}]}], "c": [{"z": 1}, {"z": 2}]}
    assert compile_conditions({"a": {"x": [1], "b": {"y": [2]}}, "c": {"z": [2]}}).matches(event)
    assert not compile_conditions({"a": {"x": [1], "b": {"y": [3]}}, "c": {"z": [2]}}).matches(event)


def test_scalars_of_one_list_are_not_pinned() -> None:
    assert compile_conditions({"a": ["x"], "$or": [{"b": [2]}, {"c": [1]}]}).matches({"a": ["x", "y"], "b": [1, 2]})


def test_an_array_mismatch_is_explained() -> None:
    conditions = compile_conditions({"employees": {"firstName": ["Anna"], "lastName": ["Jones"]}})
    assert "same element" in conditions.explain(EMPLOYEES)[0]


def test_large_arrays_are_decided_quickly() -> None:
    event = {"a": [{"x": i, "y": i, "b": [{"z": j} for j in range(3)]} for i in range(4000)]}
    pattern = {"a": {"x": [{"exists": True}], "y": [{"exists": True}], "b": {"z": [2]}, "w": [{"exists": False}]}}
    started = time.monotonic()
    assert compile_conditions(pattern).matches(event)
    assert time.monotonic() - started < 5


REFUSED: list[tuple[Any, str, str]] = [
    ([], "conditions", "must be an object"),
    ({}, "conditions", "must not be empty"),
    ({"a": {}}, "conditions.a", "must not be empty"),
    ({"a": []}, "conditions.a", "must not be an empty list"),
    ({"a": "x"}, "conditions.a", "non-empty list"),
    ({"a": {"b": 1}}, "conditions.a.b", "non-empty list"),
    ({"payload": {"b": "x"}}, "conditions.payload.b", "non-empty list"),
    ({"a": [["x"]]}, "conditions.a[0]", "match value"),
    ({"a": [{}]}, "conditions.a[0]", "exactly one key"),
    ({"a": [{"prefix": "x", "suffix": "y"}]}, "conditions.a[0]", "exactly one key"),
    ({"a": ["x", {"contains": "y"}]}, "conditions.a[1]", "not an operator"),
    ({"a": [{"Prefix": "y"}]}, "conditions.a[0]", "not an operator"),
    ({"a": [{"greater-than": 5}]}, "conditions.a[0]", "not an operator"),
    ({"a": [{"prefix": 1}]}, "conditions.a[0].prefix", "must be a string"),
    ({"a": [{"prefix": ["x"]}]}, "conditions.a[0].prefix", "must be a string"),
    ({"a": [{"prefix": {"wildcard": "x"}}]}, "conditions.a[0].prefix", "equals-ignore-case"),
    ({"a": [{"suffix": {"equals-ignore-case": 1}}]}, "conditions.a[0].suffix.equals-ignore-case", "must be a string"),
    ({"a": [{"equals-ignore-case": ["x"]}]}, "conditions.a[0].equals-ignore-case", "must be a string"),
    ({"a": [{"wildcard": "a**b"}]}, "conditions.a[0].wildcard", "consecutive wildcard characters at position 2"),
    ({"a": [{"wildcard": "a\\b"}]}, "conditions.a[0].wildcard", "invalid escape at position 2"),
    ({"a": [{"wildcard": "a\\"}]}, "conditions.a[0].wildcard", "invalid escape"),
    ({"a": [{"wildcard": "*:*:*:*:*:event-bus/*"}]}, "conditions.a", "too complex"),
    ({"a": [{"wildcard": 5}]}, "conditions.a[0].wildcard", "must be a string"),
    ({"a": [{"anything-but": []}]}, "conditions.a[0].anything-but", "not empty"),
    ({"a": [{"anything-but": ["x", 1]}]}, "conditions.a[0].anything-but", "all strings or all numbers"),
    ({"a": [{"anything-but": None}]}, "conditions.a[0].anything-but", "strings or numbers"),
    ({"a": [{"anything-but": [True]}]}, "conditions.a[0].anything-but", "strings or numbers"),
    ({"a": [{"anything-but": {"numeric": ["=", 1]}}]}, "conditions.a[0].anything-but", "not supported"),
    ({"a": [{"anything-but": {"prefix": ""}}]}, "conditions.a[0].anything-but.prefix", "must not be empty"),
    ({"a": [{"anything-but": {"prefix": 1}}]}, "conditions.a[0].anything-but.prefix", "must be a string"),
    (
        {"a": [{"anything-but": {"prefix": {"equals-ignore-case": "x"}}}]},
        "conditions.a[0].anything-but.prefix",
        "must be a string",
    ),
    ({"a": [{"numeric": "5"}]}, "conditions.a[0].numeric", "must be"),
    ({"a": [{"numeric": [">"]}]}, "conditions.a[0].numeric", "must be"),
    ({"a": [{"numeric": ["!=", 1]}]}, "conditions.a[0].numeric[0]", "must be one of"),
    ({"a": [{"numeric": [">", "1"]}]}, "conditions.a[0].numeric[1]", "must be a number"),
    ({"a": [{"numeric": [">", True]}]}, "conditions.a[0].numeric[1]", "must be a number"),
    ({"a": [{"numeric": ["<", 1, ">", 5]}]}, "conditions.a[0].numeric[0]", "starts with"),
    ({"a": [{"numeric": [">", 1, ">", 5]}]}, "conditions.a[0].numeric[2]", "ends with"),
    ({"a": [{"numeric": [">", 5, "<", 1]}]}, "conditions.a[0].numeric", "less than its top"),
    ({"a": [{"cidr": "10.0.0.0"}]}, "conditions.a[0].cidr", "'/' is required"),
    ({"a": [{"cidr": "10.0.0.0/33"}]}, "conditions.a[0].cidr", "prefix length"),
    ({"a": [{"cidr": "10.0.0.1/32"}]}, "conditions.a[0].cidr", "prefix length"),
    ({"a": [{"cidr": "example.com/8"}]}, "conditions.a[0].cidr", "not an IP address"),
    ({"a": [{"cidr": "300.0.0.0/8"}]}, "conditions.a[0].cidr", "not an IP address"),
    ({"a": [{"exists": "true"}]}, "conditions.a[0].exists", "true or false"),
    ({"$or": {"a": ["x"]}}, "conditions.$or", "at least two"),
    ({"$or": [{"a": ["x"]}]}, "conditions.$or", "at least two"),
    ({"$or": [{"a": ["x"]}, "b"]}, "conditions.$or[1]", "must be an object"),
    ({"$or": [{"a": ["x"]}, {}]}, "conditions.$or[1]", "must not be empty"),
    ({"$or": [{"prefix": ["x"]}, {"b": ["y"]}]}, "conditions.$or[0].prefix", "reserved"),
    ({"$or": [{"a": {"date-after": ["x"]}}, {"b": ["y"]}]}, "conditions.$or[0].a.date-after", "reserved"),
    ({"$or": [{"source": "x"}, {"b": ["y"]}]}, "conditions.$or[0].source", "non-empty list"),
    ({"a": {"numeric": 5}}, "conditions.a.numeric", "non-empty list"),
    ({"a": {"prefix": "x"}}, "conditions.a.prefix", "non-empty list"),
    ({"a": None}, "conditions.a", "non-empty list"),
    ({"a": [{"numeric": []}]}, "conditions.a[0].numeric", "must be"),
    ({"a": [{"numeric": [5]}]}, "conditions.a[0].numeric", "must be"),
    ({"a": [{"numeric": ["=", 5, "<", 9]}]}, "conditions.a[0].numeric[0]", "starts with"),
    ({"a": [{"numeric": [">", 5, "<"]}]}, "conditions.a[0].numeric", "must be"),
    ({"a": [{"numeric": [">", 5, "<", 5]}]}, "conditions.a[0].numeric", "less than its top"),
    ({"a": [{"numeric": [">", 5, "<", 5.0000001]}]}, "conditions.a[0].numeric", "less than its top"),
    ({"a": [{"numeric": [">", 5_000_000_001]}]}, "conditions.a[0].numeric[1]", "5000000000"),
    ({"a": [{"numeric": [">", 1, "<", -5.1e9]}]}, "conditions.a[0].numeric[3]", "5000000000"),
    ({"a": [{"numeric": {"=": 5}}]}, "conditions.a[0].numeric", "must be"),
    ({"a": [{"anything-but": 6e9}]}, "conditions.a[0].anything-but", "5000000000"),
    ({"a": [{"anything-but": [1, -6e9]}]}, "conditions.a[0].anything-but[1]", "5000000000"),
    ({"a": [{"anything-but": [["x"]]}]}, "conditions.a[0].anything-but", "strings or numbers"),
    ({"a": [{"anything-but": {"exists": True}}]}, "conditions.a[0].anything-but", "not supported"),
    ({"a": [{"anything-but": {"anything-but": "x"}}]}, "conditions.a[0].anything-but", "not supported"),
    ({"a": [{"anything-but": {"cidr": "10.0.0.0/8"}}]}, "conditions.a[0].anything-but", "not supported"),
    ({"a": [{"anything-but": {}}]}, "conditions.a[0].anything-but", "exactly one key"),
    ({"a": [{"anything-but": {"prefix": "x", "suffix": "y"}}]}, "conditions.a[0].anything-but", "exactly one key"),
    ({"a": [{"anything-but": {"suffix": ["x", ""]}}]}, "conditions.a[0].anything-but.suffix", "must not be empty"),
    ({"a": [{"anything-but": {"wildcard": "a**"}}]}, "conditions.a[0].anything-but.wildcard", "consecutive"),
    ({"a": [{"anything-but": {"wildcard": ["a", 1]}}]}, "conditions.a[0].anything-but.wildcard", "must be a string"),
    ({"a": [{"anything-but": {"equals-ignore-case": [1]}}]}, "conditions.a[0].anything-but.equals-ignore-case", "must"),
    (
        {"a": [{"anything-but": {"suffix": {"equals-ignore-case": "x"}}}]},
        "conditions.a[0].anything-but.suffix",
        "must be a string",
    ),
    ({"a": [{"suffix": 1}]}, "conditions.a[0].suffix", "must be a string"),
    ({"a": [{"equals-ignore-case": None}]}, "conditions.a[0].equals-ignore-case", "must be a string"),
    ({"a": [{"wildcard": ["x*"]}]}, "conditions.a[0].wildcard", "must be a string"),
    ({"a": [{"wildcard": "\\n*"}]}, "conditions.a[0].wildcard", "invalid escape at position 1"),
    ({"a": [{"wildcard": "***"}]}, "conditions.a[0].wildcard", "consecutive"),
    ({"a": [{"wildcard": "\\\\**"}]}, "conditions.a[0].wildcard", "consecutive"),
    ({"a": [{"wildcard": f"*{letter}"} for letter in "abcdefghijk"]}, "conditions.a", "too complex"),
    ({"a": [{"cidr": 5}]}, "conditions.a[0].cidr", "must be a string"),
    ({"a": [{"cidr": ["10.0.0.0/8"]}]}, "conditions.a[0].cidr", "must be a string"),
    ({"a": [{"cidr": "10.0.0.0/"}]}, "conditions.a[0].cidr", "prefix length"),
    ({"a": [{"cidr": "10.0.0.0/x"}]}, "conditions.a[0].cidr", "prefix length"),
    ({"a": [{"cidr": "10.0.0.0/-1"}]}, "conditions.a[0].cidr", "prefix length"),
    ({"a": [{"cidr": "10.0.0/8"}]}, "conditions.a[0].cidr", "not an IP address"),
    ({"a": [{"cidr": "::g/8"}]}, "conditions.a[0].cidr", "not an IP address"),
    ({"a": [{"cidr": "::1/128"}]}, "conditions.a[0].cidr", "prefix length"),
    ({"a": [{"exists": 1}]}, "conditions.a[0].exists", "true or false"),
    ({"a": [{"exists": None}]}, "conditions.a[0].exists", "true or false"),
    ({"a": [{"exists": True, "prefix": "x"}]}, "conditions.a[0]", "exactly one key"),
    ({"a": {"exists": True}}, "conditions.a.exists", "non-empty list"),
    ({"$or": []}, "conditions.$or", "at least two"),
    ({"$or": "x"}, "conditions.$or", "at least two"),
    ({"$or": [["x"], ["y"]]}, "conditions.$or[0]", "must be an object"),
    ({"$or": [{"a": []}, {"b": ["y"]}]}, "conditions.$or[0].a", "empty list"),
    ({"a": {"$or": [{"b": ["x"]}]}}, "conditions.a.$or", "at least two"),
    ({"$or": [{"$or": [{"a": [1]}]}, {"b": ["y"]}]}, "conditions.$or[0].$or", "at least two"),
    ({"$or": [{"regex": ["x"]}, {"b": ["y"]}]}, "conditions.$or[0].regex", "reserved"),
    ({"$or": [{"<=": [5]}, {"b": ["y"]}]}, "conditions.$or[0].<=", "reserved"),
]


@pytest.mark.parametrize(("pattern", "path", "reason"), REFUSED)
def test_what_aws_refuses_is_refused_with_path_and_reason(pattern: Any, path: str, reason: str) -> None:
    with pytest.raises(Invalid) as caught:
        compile_conditions(pattern)
    assert caught.value.errors[0].path == path
    assert reason in caught.value.errors[0].message


def test_a_path_given_twice_means_what_it_says_last_as_at_aws() -> None:
    assert compile_conditions({"a": {"b": ["x"]}, "a.b": ["y"]}).matches({"a": {"b": "y"}})
    assert not compile_conditions({"a": {"b": ["x"]}, "a.b": ["y"]}).matches({"a": {"b": "x"}})
    inside = compile_conditions({"a": ["x"], "$or": [{"a": ["y"]}, {"b": ["z"]}]})
    assert inside.matches({"a": "y"})
    assert inside.matches({"a": "x", "b": "z"})
    assert not inside.matches({"a": "x"})


def test_all_faults_are_named_at_once() -> None:
    with pytest.raises(Invalid) as caught:
        compile_conditions({"a": [], "b": [{"prefix": 1}, {"x": 1}]})
    assert [error.path for error in caught.value.errors] == [
        "conditions.a",
        "conditions.b[0].prefix",
        "conditions.b[1]",
    ]


def test_or_must_not_multiply_beyond_a_thousand_combinations() -> None:
    pairs = {f"k{i}": {"$or": [{"a": [1]}, {"b": [1]}]} for i in range(9)}
    compile_conditions(pairs)
    with pytest.raises(Invalid, match="combinations"):
        compile_conditions(pairs | {"k9": {"$or": [{"a": [1]}, {"b": [1]}]}})


def test_escaped_wildcards_are_characters() -> None:
    assert wildcard(r"a\*b\\*")(r"a*b\anything") and not wildcard(r"a\*b")("axb")
