"""Topic patterns: AMQP words, and an index whose answer is that of asking every pattern."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from esb_workers.errors import Invalid
from esb_workers.expressions.topics import TopicTrie, check_message_type, is_message_type, parse_pattern

WORDS = st.sampled_from(["a", "b", "c"])
TYPES = st.lists(WORDS, min_size=1, max_size=5).map(".".join)
PATTERNS = st.lists(st.one_of(WORDS, st.sampled_from(["*", "#"])), min_size=1, max_size=5).map(".".join)


def naive(pattern: list[str], words: list[str]) -> bool:
    """The definition of AMQP 0-9-1, word by word, with no thought of speed."""
    if not pattern:
        return not words
    if pattern[0] == "#":
        return any(naive(pattern[1:], words[skipped:]) for skipped in range(len(words) + 1))
    return bool(words) and pattern[0] in ("*", words[0]) and naive(pattern[1:], words[1:])


@pytest.mark.parametrize(
    ("pattern", "message_type", "expected"),
    [
        ("user.*", "user.created", True),
        ("user.*", "user", False),
        ("user.*", "user.created.eu", False),
        ("a.#", "a", True),
        ("a.#", "a.b.c", True),
        ("#", "anything.at-all", True),
        ("#.end", "end", True),
        ("#.end", "a.b.end", True),
        ("a.#.b", "a.b", True),
        ("a.#.b", "a.x.y.b", True),
        ("a.#.b", "a.b.x", False),
        ("#.#", "a", True),
        ("*.#", "a", True),
        ("#.*", "a.b", True),
        ("User.*", "user.created", False),
    ],
)
def test_a_pattern_takes_the_types_that_amqp_says(pattern: str, message_type: str, expected: bool) -> None:
    trie: TopicTrie[str] = TopicTrie()
    trie.add(pattern, pattern)
    assert (trie.match(message_type) == [pattern]) is expected


@given(st.lists(PATTERNS, max_size=12), TYPES)
def test_the_index_answers_as_asking_each_pattern_would(patterns: list[str], message_type: str) -> None:
    trie: TopicTrie[int] = TopicTrie()
    for number, pattern in enumerate(patterns):
        trie.add(pattern, number)
    words = message_type.split(".")
    assert trie.match(message_type) == [n for n, p in enumerate(patterns) if naive(p.split("."), words)]
    assert len(trie) == len(patterns)


def test_many_hashes_cost_no_more_than_their_number() -> None:
    trie: TopicTrie[int] = TopicTrie()
    trie.add(".".join(["#", "a"] * 60), 1)
    assert trie.match(".".join(["a"] * 120)) == [1]
    assert trie.match(".".join(["b"] * 120)) == []


@pytest.mark.parametrize(
    ("pattern", "fault"),
    [
        ("", "empty word at position 1"),
        ("user.", "empty word at position 6"),
        ("a..b", "empty word at position 3"),
        ("user.cre*", "position 6"),
        ("a.##", "position 3"),
        ("a b", "position 1"),
        ("a." + "b" * 65, "longer than 64 characters at position 3"),
        (".".join(["ab"] * 90), "longer than 255"),
        (7, "must be a string"),
        ("ü.b", "position 1"),
    ],
)
def test_a_bad_pattern_is_refused_with_its_position(pattern: object, fault: str) -> None:
    with pytest.raises(Invalid, match=fault) as caught:
        parse_pattern(pattern, "pattern")
    assert caught.value.errors[0].path == "pattern"


def test_a_message_type_has_no_wildcards() -> None:
    assert is_message_type("user.created") and check_message_type("Order-1.x_y") == "Order-1.x_y"
    for text in ("user.*", "#", "", "a.", "a\n", "a" * 65, ".".join(["ab"] * 90)):
        assert not is_message_type(text)
        with pytest.raises(Invalid):
            check_message_type(text)
