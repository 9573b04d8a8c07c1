"""The index of routes: it finds what asking every route would find, whatever is put in and taken out."""

from __future__ import annotations

from datetime import UTC, datetime
from itertools import count
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from esb_workers.expressions.needs import needs_of
from esb_workers.expressions.patterns import ROUTE_ROOTS, ConditionIndex, compile_conditions
from esb_workers.expressions.patterns.access import Key, form_of
from esb_workers.expressions.topics import TopicTrie, topic_matches
from esb_workers.routing import matching
from esb_workers.routing.route import Route, compile_route
from esb_workers.routing.table import RoutingTable

NOW = datetime(2026, 1, 31, 8, tzinfo=UTC)

WORDS = st.sampled_from(["a", "b", "c"])
TYPES = st.lists(WORDS, min_size=1, max_size=4).map(".".join)
PATTERNS = st.lists(WORDS | st.sampled_from(["*", "#"]), min_size=1, max_size=4).map(".".join)

TEXTS = st.sampled_from(["", "x", "xy", "xyz", "Xy", "y", "10.0.0.1", "010.0.0.1", "5", "ab"])
SCALARS = TEXTS | st.sampled_from([None, True, False, 0, 1, 1.0, 5, -2.5, 5_000_000_001])
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("pq"), inner, max_size=2),
    max_leaves=6,
)
ALTERNATIVES = st.one_of(
    SCALARS,
    TEXTS.map(lambda text: {"prefix": text}),
    TEXTS.map(lambda text: {"suffix": text}),
    TEXTS.map(lambda text: {"exactly": text}),
    TEXTS.map(lambda text: {"equals-ignore-case": text}),
    TEXTS.map(lambda text: {"prefix": {"equals-ignore-case": text}}),
    st.sampled_from(["*", "x*", "*y", "x*z", "xy"]).map(lambda text: {"wildcard": text}),
    TEXTS.map(lambda text: {"anything-but": text}),
    st.sampled_from([0, 1, 5]).map(lambda n: {"numeric": ["=", n]}),
    st.sampled_from([0, 1, 5]).map(lambda n: {"numeric": [">", n]}),
    st.booleans().map(lambda wanted: {"exists": wanted}),
    st.just({"cidr": "10.0.0.0/8"}),
    TEXTS.map(lambda text: {"all": [{"suffix": "y"}, {"prefix": text}]}),
    TEXTS.map(lambda text: {"not": text}),
    st.just({"regex": "^x"}),
)
LEAVES = st.lists(ALTERNATIVES, min_size=1, max_size=2)
PATHS = st.sampled_from(["payload", "payload.p", "payload.p.q", "payload.q", "header.X-P", "headers.x-q", "source"])
FIELDS = st.dictionaries(PATHS, LEAVES, min_size=1, max_size=3)
CONDITIONS = FIELDS | st.builds(lambda fields, one, other: {**fields, "$or": [one, other]}, FIELDS, FIELDS, FIELDS)
LITERALS = st.sampled_from(["'x'", '"xy"', "5", "1", "1.0", "true", "null", "'x' + 'y'"])
SELECTIONS = st.sampled_from(
    ["payload.p", "payload.p[0]", "payload['p'].q", "headers['x-p']", "source", "message.payload", "now"]
)
PARTS = st.one_of(
    st.builds(lambda a, b: f"{a} == {b}", SELECTIONS, LITERALS),
    st.builds(lambda a, b: f"{b} == {a}", SELECTIONS, LITERALS),
    st.builds(lambda a, b: f"{a} in [{', '.join(b)}]", SELECTIONS, st.lists(LITERALS, max_size=2)),
    st.builds(lambda a, b: f"({a} == {b} || true)", SELECTIONS, LITERALS),
    st.sampled_from(["true", "payload.p != 'x'", "true || payload.p == 'x'", "payload.p == 'x' ? true : true"]),
)
FILTERS = st.lists(PARTS, min_size=1, max_size=3).map(" && ".join)
ROUTES = st.fixed_dictionaries(
    {"pattern": PATTERNS},
    optional={
        "conditions": CONDITIONS,
        "filter": FILTERS,
        "priority": st.integers(0, 2),
        "stopOnMatch": st.booleans(),
        "enabled": st.booleans(),
        "default": st.booleans(),
    },
)
HEADERS = st.dictionaries(st.sampled_from(["x-p", "X-P", "X-q"]), TEXTS, max_size=2)
MESSAGES = st.fixed_dictionaries(
    {"messageType": TYPES, "source": TEXTS, "payload": VALUES, "headers": HEADERS, "correlationId": st.just("c")}
)
_ids = count()


def compiled(body: dict[str, Any]) -> Route:
    number = next(_ids)
    return compile_route({"name": f"r{number}", "destinations": ["s"]} | body, route_id=f"{number:012}")


def naive(routes: list[Route], message: dict[str, Any]) -> list[str]:
    """Ask every route in order."""
    variables = matching.variables_of(message, NOW)
    for default in (False, True):
        taken: list[str] = []
        for route in sorted(routes, key=lambda r: r.rank):
            if not route.enabled or route.default is not default:
                continue
            if not topic_matches(route.pattern.split("."), message["messageType"].split(".")):
                continue
            if matching.admits(route, message, variables):
                taken.append(route.name)
                if route.stop_on_match:
                    break
        if taken:
            return taken
    return []


def indexed(table: RoutingTable, message: dict[str, Any]) -> list[str]:
    return [match.route.name for match in table.match(message, NOW)]


# One pattern of a dozen routes, so that the index over conditions is at work and not only the trie.
CROWDS = st.lists(ROUTES, max_size=4) | st.lists(
    ROUTES.map(lambda body: body | {"pattern": "#"}), min_size=9, max_size=14
)


@settings(max_examples=300)
@given(CROWDS, st.lists(MESSAGES, min_size=1, max_size=4), st.data())
def test_the_index_and_a_naive_matcher_agree_through_every_change(
    bodies: list[dict[str, Any]], messages: list[dict[str, Any]], data: st.DataObject
) -> None:
    routes = [compiled(body) for body in bodies]
    table = RoutingTable(routes)
    for message in messages:
        assert indexed(table, message) == naive(routes, message)
        if routes:
            gone = routes.pop(data.draw(st.integers(0, len(routes) - 1)))
            table.remove(gone.id)
            assert indexed(table, message) == naive(routes, message)
        changed = compiled(data.draw(ROUTES))
        routes.append(changed)
        table.put(changed)
        assert indexed(table, message) == naive(routes, message)


@given(PATTERNS, TYPES)
def test_the_trie_and_the_words_of_one_pattern_agree(pattern: str, message_type: str) -> None:
    trie: TopicTrie[str] = TopicTrie()
    trie.add(pattern, "here")
    assert topic_matches(pattern.split("."), message_type.split(".")) is (trie.match(message_type) == ["here"])


@given(st.lists(PATTERNS, max_size=8), st.data())
def test_what_is_removed_from_a_trie_is_as_if_it_had_never_been_added(patterns: list[str], data: st.DataObject) -> None:
    trie: TopicTrie[tuple[int, str]] = TopicTrie()
    values = list(enumerate(patterns))
    for value in values:
        trie.add(value[1], value)
    kept = [value for value in values if data.draw(st.booleans())]
    for value in values:
        if value not in kept:
            trie.remove(value[1], value)
    assert len(trie) == len(kept)
    message_type = data.draw(TYPES)
    fresh: TopicTrie[tuple[int, str]] = TopicTrie()
    for value in kept:
        fresh.add(value[1], value)
    assert trie.match(message_type) == fresh.match(message_type)
    if not kept:
        assert not trie._root.children and trie._root.hash is None


def test_only_what_may_match_is_asked() -> None:
    index: ConditionIndex[int] = ConditionIndex()
    for number in range(1000):
        fields = {"payload.customer": f"c-{number}", "header.region": "eu", "payload.total": [{"numeric": [">", 1]}]}
        index.add(number, compile_conditions(fields, roots=ROUTE_ROOTS).access)
    event = {"payload": {"customer": "c-17", "total": 5}, "headers": {"Region": "eu"}}
    # The first to come may be filed under the region, which then tells nobody apart.
    assert 17 in index.candidates(event)
    assert len(index.candidates(event)) <= 2


def test_an_index_from_which_all_is_taken_is_empty() -> None:
    index: ConditionIndex[str] = ConditionIndex()
    conditions = compile_conditions({"a": [{"prefix": "x"}, "y"], "$or": [{"b": [1]}, {"c": [{"wildcard": "q*"}]}]})
    index.add("it", conditions.access)
    index.add("open", [{}])
    index.discard("it")
    index.discard("open")
    index.discard("never there")
    assert len(index) == 0
    assert not index._paths and not index._steps and not index._always


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("payload.customer == 'c-1'", {"payload.customer": ["c-1"]}),
        ("'c-1' == payload['customer'] && payload.total > 5", {"payload.customer": ["c-1"]}),
        ("headers['X-Region'] in ['eu', \"us\"]", {"headers.x-region": ["eu", "us"]}),
        ("message.payload.lines[0].n == 5 && source == 'shop'", {"payload.lines.n": [5], "source": ["shop"]}),
        ("payload.a == 'x' || payload.b == 'y'", {}),
        ("payload.a == 'x' ? true : false", {}),
        ("!(payload.a == 'x')", {}),
        ("payload.a == payload.b", {}),
        ("payload.a == 6000000000", {}),
        ("payload.a in payload.b", {}),
        ("size(payload.a) == 5", {}),
        ("now == 'x'", {}),
    ],
)
def test_a_filter_shows_plainly_what_it_needs_or_nothing(source: str, found: dict[str, list[Any]]) -> None:
    wanted = {path: tuple(Key("same", form_of(value)) for value in values) for path, values in found.items()}
    assert needs_of(source) == wanted
