"""Templates: `${CEL}` anywhere in the strings of a JSON value."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from esb_workers.errors import ExpressionError, Invalid
from esb_workers.expressions.templates import compile_template

VARIABLES: dict[str, Any] = {
    "payload": {"id": 7, "name": "Zoë/ä b", "tags": ["x", 1], "b": True, "none": None, "o": {"z": 1, "a": 2}}
}


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ("${payload.id}", 7),
        ("${payload.none}", None),
        ("${payload.tags}", ["x", 1]),
        (" ${payload.id}", " 7"),
        ("id=${payload.id};${payload.name}", "id=7;Zoë/ä b"),
        ("${payload.id}${payload.b}", "7true"),
        ("tags: ${payload.tags}, ${payload.none}", 'tags: ["x",1], null'),
        ("${payload.o} ", '{"z":1,"a":2} '),
        ("${payload.id + 0.5}", 7.5),
        # the closing brace is CEL's
        ("${'}'}", "}"),
        ("${{'a': {'b': payload.id}}.a.b}", 7),
        ('${"}" + \'}\' + r"\\}" // } comment\n}', "}}\\}"),
        ("${'''}'''}-", "}-"),
        # literals
        ("$${payload.id}", "${payload.id}"),
        ("$$${payload.id}", "$${payload.id}"),
        ("$ ${payload.id} $", "$ 7 $"),
        ("cost: $5 {x}", "cost: $5 {x}"),
        ("$", "$"),
        ("", ""),
        # structure
        ({"a": ["${payload.id}", {"b": "x"}], "${k}": 1}, {"a": [7, {"b": "x"}], "${k}": 1}),
        ({"s": "$${x}", "n": "${payload.id}"}, {"s": "${x}", "n": 7}),
        ({"s": ["$${x}"]}, {"s": ["${x}"]}),
        (5, 5),
        (None, None),
        ([], []),
    ],
)
def test_a_template_renders_to(template: Any, expected: Any) -> None:
    rendered = compile_template(template, "output").render(VARIABLES)
    assert rendered == expected and type(rendered) is type(expected)


@pytest.mark.parametrize(
    ("template", "path", "reason"),
    [
        ("x ${payload.id", "output", "the ${ at position 3 is never closed"),
        ("${'a}", "output", "the ${ at position 1 is never closed"),
        ({"a": ["ok", "ab${1 +}"]}, "output.a[1]", "in the ${ at position 3: Syntax error"),
        ("${}", "output", "not empty"),
        ("${" + "1 + " * 3000 + "1}", "output", "not closed within 4096"),
    ],
)
def test_a_bad_template_is_refused_with_path_and_position(template: Any, path: str, reason: str) -> None:
    with pytest.raises(Invalid) as caught:
        compile_template(template, "output")
    assert caught.value.errors[0].path == path
    assert reason in caught.value.errors[0].message


def test_all_faults_are_named_at_once() -> None:
    with pytest.raises(Invalid) as caught:
        compile_template({"a": "${", "b": ["${1 +}"]}, "set")
    assert [error.path for error in caught.value.errors] == ["set.a", "set.b[0]"]


def test_an_unknown_name_fails_when_it_is_rendered() -> None:
    template = compile_template({"a": "${nope.x}"}, "output")
    assert template.names == {"nope"} and not template.is_static
    with pytest.raises(ExpressionError, match="nope"):
        template.render(VARIABLES)


def test_values_in_a_path_are_percent_encoded() -> None:
    template = compile_template("users/${payload.name}/x y?b=${payload.b}", "path")
    assert template.render_string_percent_encoded(VARIABLES) == "users/Zo%C3%AB%2F%C3%A4%20b/x y?b=true"
    assert compile_template("a/../b", "path").render_string_percent_encoded({}) == "a/../b"


@pytest.mark.parametrize("value", ["..", "."])
def test_values_cannot_climb_in_a_path(value: str) -> None:
    for text in ("users/${v}", "users/${v}/x"):
        with pytest.raises(ExpressionError, match="climbs"):
            compile_template(text, "path").render_string_percent_encoded({"v": value})


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(), lambda t: st.lists(t) | st.dictionaries(st.text(), t)
    )
)
def test_json_without_expressions_is_itself(value: Any) -> None:
    try:
        template = compile_template(value, "output")
    except Invalid:
        return
    if template.is_static and "$${" not in repr(value):
        assert template.render({}) == value


@given(st.text(alphabet="abc'\"{}[]", max_size=12))
def test_any_string_literal_of_cel_may_stand_in_a_template(text: str) -> None:
    literal = "'" + text.replace("'", "\\'") + "'"
    assert compile_template("<${" + literal + "}>", "output").render({}) == f"<{text}>"
