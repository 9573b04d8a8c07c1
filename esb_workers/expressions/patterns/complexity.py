"""How many places of the wildcard patterns of one leaf a value can be at once.

EventBridge refuses a leaf whose wildcards could all be half matched at the same time too often; its own example is
`*:*:*:*:*:event-bus/*`. The measure here is the greatest number of places in which a reader of the value, one
character at a time, may stand; the search for it ends as soon as the limit is passed.
"""

from __future__ import annotations

from collections.abc import Sequence

from esb_workers.expressions.patterns.values import wildcard_pieces

#: Places beyond which EventBridge refuses.
LIMIT = 10
#: Sets of places looked at before a leaf counts as too complex whatever it is.
MAX_SETS = 5000

#: A place: (number of the pattern, tokens read of it). A token is a character, or None for `*`.
Place = tuple[int, int]


def too_complex(patterns: Sequence[str]) -> bool:
    """Whether the wildcard patterns of one leaf, each of them valid, go beyond the limit together."""
    texts = [_tokens(pattern) for pattern in dict.fromkeys(patterns)]
    if not any(None in text for text in texts):
        return False
    alphabet: list[str] = [*{token for text in texts for token in text if token is not None}, ""]
    start = frozenset((number, 0) for number in range(len(texts)))
    seen, waiting = {start}, [start]
    while waiting:
        places = waiting.pop()
        for character in alphabet:
            following = _read(places, character, texts)
            if _width(following, texts) > LIMIT or len(seen) > MAX_SETS:
                return True
            if following and following not in seen:
                seen.add(following)
                waiting.append(following)
    return False


def _tokens(pattern: str) -> list[str | None]:
    # The quotes around a JSON string are read like the rest: they keep what follows a leading `*` apart from it.
    tokens: list[str | None] = ['"']
    for number, piece in enumerate(wildcard_pieces(pattern)):
        tokens += [None] * (number > 0)
        tokens += piece
    return [*tokens, '"']


def _read(places: frozenset[Place], character: str, texts: Sequence[list[str | None]]) -> frozenset[Place]:
    """Where one may stand after `character`; an empty one stands for all that no pattern names."""
    following: set[Place] = set()
    for number, read in places:
        text = texts[number]
        if read and text[read - 1] is None:
            following.add((number, read))
        if read == len(text):
            continue
        literal = read
        if text[read] is None:
            following.add((number, read + 1))
            literal = read + 1  # `*` may also stand for nothing
        if text[literal] == character:
            following.add((number, literal + 1))
    return frozenset(following)


def _width(places: frozenset[Place], texts: Sequence[list[str | None]]) -> int:
    entered = {(n, read + 1) for n, read in places if read < len(texts[n]) and texts[n][read] is None}
    return len(places | entered)
