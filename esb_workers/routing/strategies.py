"""Which destinations of a matching route get the message.

A strategy is an entry point of the group `esb.routing_strategies`: a function of the destinations whose
condition holds (never empty, in list order) and a Choice. Wire taps are not asked: they always get a copy.
"""

from __future__ import annotations

import itertools
import random as random_numbers
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

from esb_workers import plugins

if TYPE_CHECKING:
    from esb_workers.routing.route import Destination, Route

GROUP = "esb.routing_strategies"
#: The message itself says who gets it: the route's `recipients`. No function of the destinations, so not one of these.
RECIPIENT_LIST = "recipient_list"

#: Decided anew per attempt, by the worker that delivers; here it only says whom the first attempt would go to.
FIRST_AVAILABLE = "first_available"

_HERE = "esb_workers.routing.strategies"
BUILT_IN = {
    "all": f"{_HERE}:everyone",
    "first_available": f"{_HERE}:first_available",
    "round_robin": f"{_HERE}:round_robin",
    "weighted": f"{_HERE}:weighted",
}


@dataclass(frozen=True, slots=True)
class Choice:
    """What a strategy may go by, besides the destinations themselves."""

    counter: int  # messages this route has chosen for before, in this process
    random: Callable[[], float]  # in [0, 1)
    available: Callable[[Destination], bool]  # whether a delivery to it would not be held now


Strategy = Callable[[Sequence["Destination"], Choice], Sequence["Destination"]]


def everyone(destinations: Sequence[Destination], choice: Choice) -> Sequence[Destination]:
    """`all`: each of them."""
    return destinations


def first_available(destinations: Sequence[Destination], choice: Choice) -> Sequence[Destination]:
    """`first_available`: the first that would not be held; the first of all when every one would be."""
    return [next((destination for destination in destinations if choice.available(destination)), destinations[0])]


def round_robin(destinations: Sequence[Destination], choice: Choice) -> Sequence[Destination]:
    """`round_robin`: in turn, one a message."""
    return [destinations[choice.counter % len(destinations)]]


def weighted(destinations: Sequence[Destination], choice: Choice) -> Sequence[Destination]:
    """`weighted`: one, by chance in proportion to the weights; weight 0 only when all have it."""
    limits = list(itertools.accumulate(destination.weight for destination in destinations))
    drawn = choice.random() * limits[-1]
    return [next((d for d, limit in zip(destinations, limits, strict=True) if drawn < limit), destinations[0])]


@lru_cache(maxsize=1)
def strategies() -> dict[str, Strategy]:
    """Every strategy there is, by name; entry points are read once, at first use."""
    return plugins.load(GROUP, BUILT_IN)


class Chooser:
    """Counts per route and passes on chance and availability. Safe to share between threads."""

    def __init__(
        self,
        random: Callable[[], float] = random_numbers.random,
        available: Callable[[Destination], bool] = lambda destination: True,
    ) -> None:
        self._random, self._available = random, available
        self._counters: dict[str, itertools.count[int]] = {}

    def choice(self, route: Route) -> Choice:
        """The next choice of this route; it counts."""
        # itertools.count moves on in one step of the interpreter, so no two threads see one number.
        counter = self._counters.setdefault(route.id or route.name, itertools.count())
        return Choice(next(counter), self._random, self._available)
