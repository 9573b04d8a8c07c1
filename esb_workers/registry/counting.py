"""What counts the windows of a quota: the words that the counters and those who ask them share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, Protocol


class Limit(NamedTuple):
    """At most `most` in each window of `seconds`."""

    seconds: int
    most: int


class RateLimit(NamedTuple):
    """What is left of the window nearest to empty; `reset` in seconds."""

    limit: int
    remaining: int
    reset: int


@dataclass(frozen=True, slots=True)
class Taken:
    """Places taken, to be given back if nothing comes of the request."""

    client_id: str
    places: int
    at: int  #: the counter's clock when they were taken, seconds since 1970
    limits: tuple[Limit, ...]
    nearest: RateLimit
    counter: Counter


class Refused(NamedTuple):
    """The window that has no room for the request."""

    nearest: RateLimit


class Counter(Protocol):
    """Where the windows are counted. Each method raises OSError-like trouble as CounterAway."""

    def take(self, client_id: str, limits: tuple[Limit, ...], places: int) -> Taken | Refused:
        """Take `places` in every window, or in none."""
        ...

    def give_back(self, taken: Taken) -> None:
        """Undo `take`, as far as its windows are still the present ones."""
        ...

    def used(self, client_id: str, limits: tuple[Limit, ...]) -> list[RateLimit]:
        """Each window as it stands, in the order of `limits`."""
        ...

    def close(self) -> None:
        """Let go of connections."""
        ...


class CounterAway(Exception):
    """The server that counts does not answer in time."""
