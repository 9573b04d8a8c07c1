"""Compatible changes of a schema, told from breaking ones, with the reason."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from esb_workers.expressions.compatibility import breaking, changes
from esb_workers.expressions.schemas import compile_schema

ORDER = {
    "type": "object",
    "properties": {"id": {"type": "string"}, "total": {"type": "number"}, "state": {"enum": ["new", "paid"]}},
    "required": ["id"],
}
CLOSED = ORDER | {"additionalProperties": False}


def with_property(schema: dict[str, Any], name: str, inner: Any) -> dict[str, Any]:
    return schema | {"properties": schema["properties"] | {name: inner}}


def without(schema: dict[str, Any], name: str) -> dict[str, Any]:
    return schema | {"properties": {key: inner for key, inner in schema["properties"].items() if key != name}}


@pytest.mark.parametrize(
    ("old", "new", "breaks"),
    [
        (ORDER, ORDER, ""),
        (ORDER, ORDER | {"title": "An order", "description": "d", "examples": [{}]}, ""),
        (ORDER, with_property(ORDER, "note", {"type": "string"}), ""),
        (ORDER, without(ORDER, "total"), ""),
        (CLOSED, with_property(CLOSED, "note", {"type": "string"}), "forward"),
        (CLOSED, without(CLOSED, "total"), "backward"),
        (ORDER, CLOSED, "backward"),
        (CLOSED, ORDER, "forward"),
        (ORDER, ORDER | {"required": ["id", "total"]}, "backward"),
        (ORDER, ORDER | {"required": []}, "forward"),
        (ORDER, with_property(ORDER, "total", {"type": "integer"}), "backward"),
        (ORDER, with_property(ORDER, "total", {"type": ["number", "null"]}), "forward"),
        (ORDER, with_property(ORDER, "total", {"type": "string"}), "backward forward"),
        (ORDER, with_property(ORDER, "state", {"enum": ["new", "paid", "sent"]}), "forward"),
        (ORDER, with_property(ORDER, "state", {"enum": ["paid"]}), "backward"),
        (ORDER, with_property(ORDER, "state", {"const": "new"}), "backward"),
        ({"minimum": 3}, {"minimum": 4}, "backward"),
        ({"minimum": 3}, {"minimum": 2}, "forward"),
        ({"maxLength": 3}, {}, "forward"),
        ({}, {"minLength": 0}, ""),
        ({}, {"pattern": "^a"}, "backward"),
        ({"pattern": "^a"}, {"pattern": "^b"}, "backward forward"),
        ({"items": {"type": "string"}}, {"items": {"type": ["string", "null"]}}, "forward"),
        ({"prefixItems": [{"type": "string"}]}, {"prefixItems": [{"type": "string"}, {"type": "null"}]}, "backward"),
        ({"uniqueItems": True}, {}, "forward"),
        ({"anyOf": [{"type": "string"}]}, {"anyOf": [{"type": "string"}, {"type": "null"}]}, "forward"),
        ({"oneOf": [{"type": "string"}]}, {"oneOf": [{"type": "string"}, {"type": "null"}]}, "backward forward"),
        ({"allOf": [{"minimum": 1}]}, {"allOf": [{"minimum": 1}, {"maximum": 9}]}, "backward"),
        ({}, {"not": {"type": "null"}}, "backward"),
        ({"if": {"const": 1}, "then": {}}, {"if": {"const": 2}, "then": {}}, "backward forward"),
        (True, False, "backward"),
        (False, True, "forward"),
        (True, {}, ""),
        (
            {"additionalProperties": {"type": "string"}},
            {"additionalProperties": {"type": "number"}},
            "backward forward",
        ),
        ({"enum": [1]}, {"enum": [True]}, "backward forward"),
        (
            {"$defs": {"a": {"type": "string"}}, "properties": {"x": {"$ref": "#/$defs/a"}}},
            {"$defs": {"b": {"type": "string"}}, "properties": {"x": {"$ref": "#/$defs/b"}}},
            "",
        ),
        (
            {"$defs": {"a": {"type": "string"}}, "properties": {"x": {"$ref": "#/$defs/a"}}},
            {"$defs": {"a": {"type": "null"}}, "properties": {"x": {"$ref": "#/$defs/a"}}},
            "backward forward",
        ),
        (
            {"properties": {"next": {"$ref": "#"}, "v": {"type": "integer"}}},
            {"properties": {"next": {"$ref": "#"}, "v": {"type": "number"}}},
            "forward",
        ),
    ],
)
def test_a_change_is_told_by_whom_it_breaks(old: Any, new: Any, breaks: str) -> None:
    compile_schema(old, "old"), compile_schema(new, "new")
    found = changes(old, new)
    assert {word for change in found for word in change.breaks} == set(breaks.split()), found
    for wanted in ("backward", "forward"):
        assert bool(breaking(found, wanted)) is (wanted in breaks)
    assert bool(breaking(found, "full")) is bool(breaks)
    assert breaking(found, "none") == []


def test_alternatives_within_alternatives_come_to_an_end() -> None:
    def nested(leaf: Any) -> Any:
        schema = leaf
        for _ in range(30):
            schema = {"anyOf": [schema, {"items": schema}]}
        return schema

    assert breaking(changes(nested({"type": "string"}), nested({"type": "null"})), "full")


def test_a_reason_says_where_and_what() -> None:
    new = with_property(ORDER, "total", {"type": "integer", "minimum": 1}) | {"required": ["id", "state"]}
    assert [(change.path, change.message) for change in changes(ORDER, new)] == [
        ("state", "is required now"),
        ("total", "may no longer be number"),
        ("total", "minimum is now 1"),
    ]
    nested = {"properties": {"lines": {"items": {"properties": {"sku": {"type": "string"}}}}}}
    other = {"properties": {"lines": {"items": {"properties": {"sku": {"type": "integer"}}}}}}
    assert {change.path for change in changes(nested, other)} == {"lines[].sku"}


# --- the promise, against the validator ------------------------------------------------------------------

_scalars = st.one_of(
    st.just({}),
    st.just({"type": ["string", "null"]}),
    st.fixed_dictionaries({"type": st.just("integer")}, optional={"minimum": st.integers(-2, 2), "maximum": st.integers(0, 4)}),
    st.fixed_dictionaries({"type": st.just("number")}, optional={"exclusiveMinimum": st.integers(-2, 2), "multipleOf": st.sampled_from([1, 2])}),
    st.fixed_dictionaries({"type": st.just("string")}, optional={"minLength": st.integers(0, 2), "maxLength": st.integers(1, 3), "pattern": st.sampled_from(["^a", "b$"])}),
    st.fixed_dictionaries({"enum": st.lists(st.sampled_from([0, 1, True, "a", None]), min_size=1, max_size=3)}),
    st.booleans(),
)  # fmt: skip


def _deeper(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    objects = st.fixed_dictionaries(
        {"type": st.just("object"), "properties": st.dictionaries(st.sampled_from("pqr"), inner, max_size=3)},
        optional={
            "required": st.lists(st.sampled_from("pqr"), unique=True, max_size=2),
            "additionalProperties": st.booleans() | inner,
            "minProperties": st.integers(0, 2),
        },
    )
    arrays = st.fixed_dictionaries(
        {"type": st.just("array")},
        optional={
            "items": inner, "prefixItems": st.lists(inner, min_size=1, max_size=2), "uniqueItems": st.booleans(),
            "maxItems": st.integers(0, 3),
        },
    )  # fmt: skip
    unions = st.sampled_from(["anyOf", "oneOf", "allOf"]).flatmap(
        lambda word: st.fixed_dictionaries({word: st.lists(_scalars, min_size=1, max_size=3)})
    )
    return st.one_of(inner, objects, arrays, unions)


_schemas = _deeper(_deeper(_scalars))
_leaves = st.one_of(
    st.none(), st.booleans(), st.integers(-3, 5), st.sampled_from([0.5, 2.0, "", "a", "ab", "b", "aaaa"])
)
_payloads = st.recursive(
    _leaves,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("pqr"), inner, max_size=3),
    max_leaves=6,
)


def _named_everywhere(schema: Any) -> Any:
    """The schema with each property named that values here can have: what is taken lightly does not occur."""
    if isinstance(schema, dict):
        schema = {key: _named_everywhere(inner) for key, inner in schema.items()}
        if "properties" in schema:
            rest = schema.get("additionalProperties", True)
            schema["properties"] = dict.fromkeys("pqr", rest) | schema["properties"]
    return [_named_everywhere(inner) for inner in schema] if isinstance(schema, list) else schema


@settings(max_examples=400)
@given(_schemas, _schemas, st.lists(_payloads, min_size=1, max_size=12))
@example({"oneOf": [{}]}, {"oneOf": [{}, {}]}, [None])
@example({"oneOf": [{}, {"type": "string"}]}, {"oneOf": [{}, {}]}, [1])
def test_what_is_called_compatible_is(old: Any, new: Any, payloads: list[Any]) -> None:
    old, new = _named_everywhere(old), _named_everywhere(new)
    found = changes(old, new)
    before, after = compile_schema(old, "old"), compile_schema(new, "new")
    for payload in payloads:
        fitted, fits = not before.faults(payload), not after.faults(payload)
        if fitted and not fits:
            assert breaking(found, "backward"), payload
        if fits and not fitted:
            assert breaking(found, "forward"), payload


@given(_schemas)
def test_a_schema_is_compatible_with_itself(schema: Any) -> None:
    assert breaking(changes(schema, schema), "full") == []
