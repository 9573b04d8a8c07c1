"""Array consistency: whether the fields of one combination can be satisfied together.

Fields are taken in the order of their paths. A state is the set of array elements that the fields so far are
pinned to; a value may join it unless it lies in another element of an array that the state is already pinned
in. This is the reference implementation's procedure, order included: `exists: false` looks at the elements
that the fields before it chose. Elements of arrays that no later field touches are forgotten, which keeps the
number of states near the number of elements instead of its powers.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from esb_workers.expressions.patterns.compiler import Leaf
from esb_workers.expressions.patterns.events import Found, Membership

#: Joins of a state and a value that one decision may take; an event that needs more matches nothing.
MAX_STEPS = 200_000

State = frozenset[tuple[int, int]]
_UNPINNED: State = frozenset()


class TooIntricate(Exception):
    """The event's arrays multiply beyond MAX_STEPS."""


def satisfiable(fields: Sequence[tuple[str, Leaf]], found: Mapping[str, Sequence[Found]]) -> bool:
    """Whether all `fields`, sorted by path, match together. Raises TooIntricate."""
    states: set[State] = {_UNPINNED}
    for position, (path, leaf) in enumerate(fields):
        values = found.get(path, ())
        candidates = {value.membership for value in values if leaf.accepts(value.value)}
        joined = _join(states, candidates)
        if leaf.absent:
            joined |= _lacking(states, {value.membership for value in values})
        if not joined:
            return False
        states = _forget(joined, fields[position + 1 :], found) if joined != {_UNPINNED} else joined
    return True


def _join(states: set[State], candidates: set[Membership]) -> set[State]:
    if not candidates or candidates == {()}:
        return set(states) if candidates else set()
    index = _Index(states)
    joined: set[State] = set()
    steps = 0
    for candidate in candidates:
        for state in index.consistent(candidate):
            joined.add(state.union(candidate))
            steps += 1
            if steps > MAX_STEPS:
                raise TooIntricate
    return joined


def _lacking(states: set[State], present: set[Membership]) -> set[State]:
    """The states in whose elements no value lies: there the field does not exist."""
    if not present:
        return set(states)
    index = _Index(states)
    taken: set[State] = set()
    for membership in present:
        taken.update(index.consistent(membership))
        if len(taken) == len(states):
            break
    return states - taken


def _forget(states: set[State], later: Sequence[tuple[str, Leaf]], found: Mapping[str, Sequence[Found]]) -> set[State]:
    needed = {array for path, _ in later for value in found.get(path, ()) for array, _ in value.membership}
    return {frozenset(pin for pin in state if pin[0] in needed) for state in states}


class _Index:
    """The states by element, so that joining costs what fits together and not the product."""

    def __init__(self, states: Iterable[State]) -> None:
        self._states = list(states)
        self._arrays = {state: {array for array, _ in state} for state in self._states}
        self._by_pin: dict[tuple[int, int], list[State]] = {}
        self._lists: dict[tuple[tuple[int, int] | None, int | None], list[State]] = {}
        for state in self._states:
            for pin in state:
                self._by_pin.setdefault(pin, []).append(state)

    def consistent(self, membership: Membership) -> Iterator[State]:
        """The states that pin no array of `membership` to another element.

        Arrays nest, so a state that knows an inner array agrees on all around it: it is enough to ask, from
        the innermost outwards, for states that hold this element and do not know the array just inside it.
        """
        inner: int | None = None
        for pin in reversed(membership):
            yield from self._holding(pin, inner)
            inner = pin[0]
        yield from self._holding(None, inner)

    def _holding(self, pin: tuple[int, int] | None, unknown: int | None) -> list[State]:
        key = (pin, unknown)
        if key not in self._lists:
            states = self._states if pin is None else self._by_pin.get(pin, [])
            self._lists[key] = [s for s in states if unknown is None or unknown not in self._arrays[s]]
        return self._lists[key]
