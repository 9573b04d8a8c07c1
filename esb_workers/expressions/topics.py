"""Message types and the AMQP topic patterns over them.

A message type is words of `[A-Za-z0-9_-]{1,64}` parted by dots, at most 255 characters; case counts. In a
pattern a word may also be `*` (exactly one word) or `#` (any number of words, none included).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Generic, TypeVar

from esb_workers.errors import FieldError, Invalid

T = TypeVar("T")

MAX_LENGTH = 255
_WORD = re.compile(r"[A-Za-z0-9_-]{1,64}")
_MESSAGE_TYPE = re.compile(r"[A-Za-z0-9_-]{1,64}(?:\.[A-Za-z0-9_-]{1,64})*")


def is_message_type(text: str) -> bool:
    """Whether `text` is a message type; the cheap form of `check_message_type`."""
    return len(text) <= MAX_LENGTH and _MESSAGE_TYPE.fullmatch(text) is not None


def check_message_type(text: object, path: str = "messageType") -> str:
    """The message type itself. Raises Invalid naming the word at fault and its position."""
    _split(text, path, wildcards=False)
    return str(text)


def parse_pattern(text: object, path: str = "pattern") -> tuple[str, ...]:
    """The words of a topic pattern. Raises Invalid naming the word at fault and its position."""
    return _split(text, path, wildcards=True)


def _split(text: object, path: str, *, wildcards: bool) -> tuple[str, ...]:
    if not isinstance(text, str):
        raise Invalid([FieldError(path, "must be a string")])
    if len(text) > MAX_LENGTH:
        raise Invalid([FieldError(path, f"is longer than {MAX_LENGTH} characters")])
    words = tuple(text.split("."))
    position = 1
    for word in words:
        fault = _fault(word, wildcards)
        if fault:
            raise Invalid([FieldError(path, f"{fault} at position {position}")])
        position += len(word) + 1
    return words


def _fault(word: str, wildcards: bool) -> str | None:
    if not word:
        return "has an empty word"
    if _WORD.fullmatch(word) or (wildcards and word in ("*", "#")):
        return None
    if len(word) > 64:
        return "has a word longer than 64 characters"
    also = ", or is `*` or `#` alone" if wildcards else ""
    return f"has a word that is not made of letters, digits, `_` and `-`{also}"


def topic_matches(pattern: Sequence[str], words: Sequence[str]) -> bool:
    """Whether the words of a message type match those of one pattern."""
    at = taken = 0
    hash_at, retry = -1, 0  # the last `#`, and the word up to which it has stretched
    while taken < len(words):
        if at < len(pattern) and pattern[at] == "#":
            hash_at, retry, at = at, taken, at + 1
        elif at < len(pattern) and pattern[at] in ("*", words[taken]):
            at, taken = at + 1, taken + 1
        elif hash_at >= 0:
            retry += 1
            at, taken = hash_at + 1, retry
        else:
            return False
    return all(word == "#" for word in pattern[at:])


class _Node(Generic[T]):
    __slots__ = ("children", "hash", "stays", "values")

    def __init__(self, stays: bool = False) -> None:
        self.children: dict[str, _Node[T]] = {}
        #: The node behind `#`: reached as soon as this one is, for `#` may stand for no word.
        self.hash: _Node[T] | None = None
        #: Whether this node is itself behind a `#`, and so remains reached whatever word comes.
        self.stays = stays
        self.values: list[tuple[int, T]] = []


class TopicTrie(Generic[T]):
    """Values filed under topic patterns; looking a message type up costs what matches, not what is filed."""

    def __init__(self) -> None:
        self._root: _Node[T] = _Node()
        self._added = self._size = 0

    def __len__(self) -> int:
        return self._size

    def add(self, pattern: str, value: T) -> None:
        """File `value` under `pattern`. Raises Invalid for what is no pattern."""
        node = self._root
        for word in parse_pattern(pattern):
            node = _child(node, word)
        node.values.append((self._added, value))
        self._added += 1
        self._size += 1

    def remove(self, pattern: str, value: T) -> None:
        """Take out a value filed under `pattern`; it must be there. Raises Invalid for what is no pattern."""
        way = [self._root]
        words = parse_pattern(pattern)
        for word in words:
            way.append(_child(way[-1], word))
        node = way[-1]
        self._size -= len(node.values)
        node.values = [entry for entry in node.values if entry[1] is not value]
        self._size += len(node.values)
        for parent, word, child in reversed(list(zip(way, words, way[1:], strict=False))):
            if child.children or child.hash or child.values:
                return
            if word == "#":
                parent.hash = None
            else:
                del parent.children[word]

    def match(self, message_type: str) -> list[T]:
        """The values whose pattern matches, in the order in which they were added."""
        active = _close([self._root])
        for word in message_type.split("."):
            active = _close(_advance(active, word))
            if not active:
                return []
        found = [entry for node in active for entry in node.values]
        return [value for _, value in sorted(found, key=lambda entry: entry[0])]


def _child(node: _Node[T], word: str) -> _Node[T]:
    if word == "#":
        node.hash = node.hash or _Node(stays=True)
        return node.hash
    return node.children.setdefault(word, _Node())


def _close(nodes: Iterable[_Node[T]]) -> dict[_Node[T], None]:
    """`nodes`, and every node reached from them by letting a `#` stand for no word."""
    closed: dict[_Node[T], None] = {}
    for node in nodes:
        following: _Node[T] | None = node
        while following is not None and following not in closed:
            closed[following] = None
            following = following.hash
    return closed


def _advance(active: Iterable[_Node[T]], word: str) -> Iterable[_Node[T]]:
    for node in active:
        if node.stays:
            yield node
        for key in (word, "*"):
            if key in node.children:
                yield node.children[key]
