"""Transformation pipelines: what each type does, and what is refused when it is saved."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from esb_workers.errors import Invalid, TransformationError
from esb_workers.routing import transform
from esb_workers.routing.paths import MISSING, NoPlace, get, put, remove
from esb_workers.routing.transform import Form, compile_pipeline

PAYLOAD: dict[str, Any] = {
    "id": 7,
    "customer": {"name": "Ann", "email": None},
    "lines": [{"sku": "a", "n": 2}, {"sku": "b", "n": 3}],
}
HEADERS = {"eventType": "order.created", "X-Region": "eu"}
VARIABLES: dict[str, Any] = {"payload": PAYLOAD, "headers": HEADERS, "messageType": "order.created", "source": "shop"}


def run(*steps: Any, payload: Any = PAYLOAD) -> tuple[Any, dict[str, str]]:
    return compile_pipeline(list(steps), "transformation").apply(payload, HEADERS, VARIABLES)


@pytest.mark.parametrize(
    ("step", "expected"),
    [
        (
            {"type": "template", "output": {"order": "${payload.id}", "via": "${source}/${messageType}"}},
            {"order": 7, "via": "shop/order.created"},
        ),
        ({"type": "template", "output": "${payload.lines.map(l, l.sku)}"}, ["a", "b"]),
        ({"type": "template", "output": None}, None),
        ({"type": "pick", "fields": ["id", "customer.name", "gone"]}, {"id": 7, "customer": {"name": "Ann"}}),
        ({"type": "drop", "fields": ["lines", "customer.email", "gone.x"]}, {"id": 7, "customer": {"name": "Ann"}}),
        (
            {"type": "drop", "fields": ["lines.0", "lines.1.n", "customer"]},
            {"id": 7, "lines": [{"sku": "b"}]},
        ),
    ],
)
def test_a_transformation_makes(step: dict[str, Any], expected: Any) -> None:
    before = copy.deepcopy(PAYLOAD)
    assert run(step)[0] == expected
    assert before == PAYLOAD


def test_rename_moves_all_fields_at_once() -> None:
    step = {"type": "rename", "fields": {"id": "customer.id", "customer.name": "name", "gone": "x"}}
    assert run(step)[0] == {"customer": {"email": None, "id": 7}, "lines": PAYLOAD["lines"], "name": "Ann"}
    assert run({"type": "rename", "fields": {"a": "b", "b": "a"}}, payload={"a": 1, "b": 2})[0] == {"a": 2, "b": 1}


def test_set_makes_the_objects_on_its_way_and_keeps_types() -> None:
    step = {"type": "set", "fields": {"meta.total": "${payload.lines.size()}", "lines.0.n": 9, "customer.email.x": "y"}}
    result, _ = run(step)
    assert result["meta"] == {"total": 2} and result["lines"][0] == {"sku": "a", "n": 9}
    assert result["customer"]["email"] == {"x": "y"}


def test_default_fills_what_is_absent_and_leaves_null() -> None:
    step = {"type": "default", "fields": {"id": 1, "customer.email": "x", "currency": "EUR", "who": "${source}"}}
    result, _ = run(step)
    assert result == PAYLOAD | {"currency": "EUR", "who": "shop"}


def test_headers_compare_without_case() -> None:
    step = {"type": "headers", "set": {"x-region": "us", "Count": "${payload.lines.size()}"}, "drop": ["EVENTTYPE"]}
    payload, headers = run(step)
    assert payload is PAYLOAD and headers == {"x-region": "us", "Count": "2"}


def test_steps_see_what_the_steps_before_made() -> None:
    payload, headers = run(
        {"type": "set", "fields": {"total": 5}},
        {"type": "headers", "set": {"Total": "${payload.total}"}},
        {"type": "template", "output": "${headers.Total + '!'}"},
        payload={},
    )
    assert payload == "5!" and headers["Total"] == "5"


def test_validate_lets_through_or_fails_with_the_paths() -> None:
    schema = {
        "type": "object",
        "properties": {"id": {"type": "integer", "maximum": 5}, "lines": {"items": {"required": ["price"]}}},
    }
    with pytest.raises(TransformationError, match=r"payload\.id.*payload\.lines\[0\].*payload\.lines\[1\]"):
        run({"type": "validate", "schema": schema})
    assert run({"type": "validate", "schema": {"type": "object"}})[0] is PAYLOAD


def test_patterns_of_schemas_run_in_linear_time() -> None:
    with pytest.raises(TransformationError, match="does not match"):
        run({"type": "validate", "schema": {"pattern": "^(a+)+$"}}, payload="a" * 50_000 + "b")


@pytest.mark.parametrize(
    ("steps", "reason"),
    [
        (
            [{"type": "set", "fields": {"x": 1}}, {"type": "template", "output": "${payload.nope}"}],
            r"1 \(template\).*nope",
        ),
        ([{"type": "set", "fields": {"id.x": 1}}], "id.x.*not an object"),
        ([{"type": "set", "fields": {"lines.9": 1}}], "no element '9'"),
        ([{"type": "headers", "set": {"X": "a\r\nEvil: 1"}}], "control character"),
        ([{"type": "template", "output": 5}, {"type": "pick", "fields": ["a"]}], "not an object"),
        ([{"type": "validate", "schema": {"$ref": "#"}}], "refers to itself"),
    ],
)
def test_a_failing_transformation_names_the_step_and_the_reason(steps: list[Any], reason: str) -> None:
    with pytest.raises(TransformationError, match=reason):
        run(*steps)


@pytest.mark.parametrize(
    ("value", "path", "reason"),
    [
        (None, "t", "object with a type"),
        ([], "t", "from 1 to"),
        ([5], "t[0]", "object with a type"),
        ({"output": 1}, "t", "object with a type"),
        ({"type": "nope"}, "t.type", "no transformation 'nope'"),
        ({"type": "enrich", "service": "x y"}, "t.service", "letters"),
        ({"type": "claim_check", "thresholdBytes": "x"}, "t.thresholdBytes", "whole number"),
        ({"type": "template"}, "t.output", "required"),
        ({"type": "template", "output": "${1 +}"}, "t.output", "position 1"),
        ({"type": "template", "output": 1, "x": 2}, "t.x", "no such field"),
        ({"type": "rename", "fields": {"a": "b..c"}}, "t.fields.a", "path"),
        ({"type": "rename", "fields": {"a": 5}}, "t.fields.a", "path"),
        ({"type": "rename", "fields": []}, "t.fields", "object"),
        ({"type": "pick", "fields": {}}, "t.fields", "list"),
        ({"type": "drop", "fields": ["a", ""]}, "t.fields[1]", "path"),
        ({"type": "set", "fields": {"a": "${"}}, "t.fields.a", "never closed"),
        ({"type": "default"}, "t.fields", "object"),
        ({"type": "headers"}, "t", "set or drop"),
        ({"type": "headers", "set": {"a b": "x"}}, "t.set.a b", "header name"),
        ({"type": "headers", "drop": [5]}, "t.drop[0]", "header name"),
        ({"type": "validate"}, "t.schema", "required"),
        ({"type": "validate", "schema": {"type": "x"}}, "t.schema.type", "not valid"),
        ({"type": "validate", "schema": {"$ref": "https://example.com/s"}}, "t.schema.$ref", "within this document"),
        (
            {"type": "validate", "schema": {"items": {"$ref": "#/$defs/x"}}},
            "t.schema.items.$ref",
            "within this document",
        ),
        ({"type": "validate", "schema": {"pattern": "(?=x)"}}, "t.schema.pattern", "re2"),
        (
            {"type": "validate", "schema": {"$schema": "http://json-schema.org/draft-07/schema#"}},
            "t.schema.$schema",
            "2020",
        ),
    ],
)
def test_a_bad_transformation_is_refused_when_saved(value: Any, path: str, reason: str) -> None:
    with pytest.raises(Invalid) as caught:
        compile_pipeline(value, "t")
    assert caught.value.errors[0].path == path
    assert reason in caught.value.errors[0].message


def test_all_faults_of_a_pipeline_are_named_at_once() -> None:
    with pytest.raises(Invalid) as caught:
        compile_pipeline([{"type": "x"}, {"type": "set", "fields": {"a": "${", "b": "${"}}], "t")
    assert [e.path for e in caught.value.errors] == ["t[0].type", "t[1].fields.a", "t[1].fields.b"]


def test_what_a_plug_in_raises_fails_this_delivery_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(config: Any, path: str) -> transform.Step:
        def step(form: Form) -> Form:
            raise KeyError("x")

        return step

    monkeypatch.setattr(transform, "transformations", lambda: {"broken": broken})
    with pytest.raises(TransformationError, match=r"0 \(broken\): KeyError"):
        run({"type": "broken"})


WORDS = st.lists(st.sampled_from(["a", "b", "0"]), min_size=1, max_size=3).map(tuple)
TREES = st.recursive(st.none() | st.integers(), lambda t: st.lists(t) | st.dictionaries(st.sampled_from("ab0"), t))


@given(TREES, WORDS)
def test_what_was_put_is_got_and_what_was_removed_is_not(tree: Any, words: tuple[str, ...]) -> None:
    before = copy.deepcopy(tree)
    try:
        assert get(put(tree, words, "new"), words) == "new"
    except NoPlace:
        pass
    removed = remove(tree, words)
    if not any(word == "0" for word in words):
        assert get(removed, words) is MISSING
    assert tree == before
