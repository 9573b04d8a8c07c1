"""Which enabled routes may take a message: by topic first, then by conditions.

Routes are kept together by pattern. A trie over the words of topics finds the patterns that match a message type,
and within a pattern an index over conditions finds the routes worth asking. Neither looks at what does not match.
"""

from __future__ import annotations

from collections.abc import Iterable

from esb_workers.expressions.needs import needs_of
from esb_workers.expressions.patterns import Access, ConditionIndex
from esb_workers.expressions.topics import TopicTrie
from esb_workers.routing.matching import Message
from esb_workers.routing.route import Route

#: Message types remembered with the patterns that match them; beyond it the memory starts anew.
MAX_TYPES = 10_000
#: Up to so many routes of one pattern are simply asked.
FEW = 8


class RouteIndex:
    """Enabled routes. May be changed at any time, but not while another thread reads it."""

    def __init__(self) -> None:
        self._trie: TopicTrie[_Group] = TopicTrie()
        self._groups: dict[str, _Group] = {}
        self._by_type: dict[str, list[_Group]] = {}

    def add(self, route: Route) -> None:
        """File a route, which is not filed yet."""
        group = self._groups.get(route.pattern)
        if group is None:
            group = self._groups[route.pattern] = _Group()
            self._trie.add(route.pattern, group)
            self._by_type.clear()
        group.add(route)

    def discard(self, route: Route) -> None:
        """Take a route out again."""
        group = self._groups[route.pattern]
        group.discard(route)
        if not group.routes:
            del self._groups[route.pattern]
            self._trie.remove(route.pattern, group)
            self._by_type.clear()

    def candidates(self, message: Message) -> list[Route]:
        """The routes worth asking whether they take `message`, in order; none that would is left out."""
        message_type = message["messageType"]
        groups = self._by_type.get(message_type)
        if groups is None:
            groups = self._remember(message_type)
        if not groups:
            return []
        found = [route for group in groups for route in group.candidates(message)]
        if len(found) > 1:
            found.sort(key=_rank)
        return found

    def _remember(self, message_type: str) -> list[_Group]:
        if len(self._by_type) >= MAX_TYPES:
            self._by_type.clear()
        groups = self._by_type[message_type] = self._trie.match(message_type)
        return groups


class _Group:
    """The routes of one pattern."""

    __slots__ = ("_index", "routes")

    def __init__(self) -> None:
        self.routes: dict[Route, None] = {}
        self._index: ConditionIndex[Route] | None = None

    def add(self, route: Route) -> None:
        self.routes[route] = None
        if self._index is not None:
            _file(self._index, route)
        elif len(self.routes) > FEW:
            self._index = ConditionIndex()
            for each in self.routes:
                _file(self._index, each)

    def discard(self, route: Route) -> None:
        self.routes.pop(route)
        if self._index is not None:
            self._index.discard(route)

    def candidates(self, message: Message) -> Iterable[Route]:
        return self.routes if self._index is None else self._index.candidates(message)


def _file(index: ConditionIndex[Route], route: Route) -> None:
    index.add(route, access_of(route))


def access_of(route: Route) -> list[Access]:
    """What a message must have for the conditions and the filter to say yes, one entry an alternative."""
    alternatives = route.conditions.access if route.conditions is not None else [{}]
    needs = needs_of(route.filter.source) if route.filter is not None else {}
    return [{**access, **needs} for access in alternatives]


def _rank(route: Route) -> tuple[int, str]:
    return route.rank
