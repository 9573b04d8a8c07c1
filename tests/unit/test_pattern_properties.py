"""Patterns agree with the plain definition of what they mean, whatever they are tried on."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from esb_workers.expressions.patterns import compile_conditions
from esb_workers.expressions.patterns.values import wildcard


def naive_wildcard(pattern: str, text: str) -> bool:
    if not pattern:
        return not text
    if pattern[0] == "*":
        return naive_wildcard(pattern[1:], text) or (bool(text) and naive_wildcard(pattern, text[1:]))
    return bool(text) and text[0] == pattern[0] and naive_wildcard(pattern[1:], text[1:])


@given(st.lists(st.sampled_from(["a", "b", "ab", ""]), min_size=1, max_size=6), st.text("ab", max_size=12))
def test_a_wildcard_matches_as_its_definition_says(pieces: list[str], text: str) -> None:
    pattern = "*".join(pieces)
    if "**" not in pattern:
        assert wildcard(pattern)(text) is naive_wildcard(pattern, text)


LEAVES = st.sampled_from([1, 2, "x", None])

TREES = st.recursive(LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abc"), inner))

EVENTS = st.dictionaries(st.sampled_from("abc"), TREES, max_size=3)


def naive_match(fields: dict[str, list[Any]], event: Any) -> bool:
    """Try every choice of one leaf a field, and compare all pairs of choices."""
    leaves: list[tuple[str, Any, dict[int, int]]] = []

    def walk(value: Any, path: str, places: dict[int, int]) -> None:
        if isinstance(value, dict):
            for key, child in value.items():
                walk(child, f"{path}.{key}" if path else key, places)
        elif isinstance(value, list):
            for index, child in enumerate(value):
                walk(child, path, places | ({id(value): index} if isinstance(child, (dict, list)) else {}))
        else:
            leaves.append((path, value, places))

    walk(event, "", {})

    def choose(paths: list[str], taken: list[dict[int, int]]) -> bool:
        if not paths:
            return True
        return any(
            choose(paths[1:], [*taken, places])
            for path, value, places in leaves
            if path == paths[0] and any(type(w) is type(value) and w == value for w in fields[path])
            if all(places.get(array, index) == index for other in taken for array, index in other.items())
        )

    return choose(sorted(fields), [])


def copied(value: Any) -> Any:
    """A copy in which every list is an object of its own, for `id` tells them apart."""
    if isinstance(value, dict):
        return {key: copied(child) for key, child in value.items()}
    return [copied(child) for child in value] if isinstance(value, list) else value


@given(
    st.dictionaries(
        st.sampled_from(["a", "a.b", "a.c", "b", "b.a", "a.b.c", "c"]),
        st.lists(LEAVES, min_size=1, max_size=2),
        min_size=1,
        max_size=4,
    ),
    EVENTS,
)
def test_array_consistency_is_that_of_trying_every_choice(fields: dict[str, list[Any]], event: Any) -> None:
    assert compile_conditions(fields).matches(event) is naive_match(fields, copied(event))
