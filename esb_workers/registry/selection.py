"""Choosing an instance of a service. Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Protocol, TypeVar

from esb_workers.registry.circuit import Circuit
from esb_workers.registry.versions import Range, parse_range, parse_version


class Candidate(Protocol):
    """What a choice looks at."""

    @property
    def version(self) -> str: ...
    @property
    def weight(self) -> int: ...
    @property
    def status(self) -> str: ...
    @property
    def health(self) -> str: ...
    @property
    def circuit(self) -> Circuit: ...


C = TypeVar("C", bound=Candidate)

#: Why nothing can be chosen, in the words that a held delivery shows.
NOT_REGISTERED: Final = "not_registered"
NO_VERSION: Final = "no_matching_version"
MAINTENANCE: Final = "maintenance"
INACTIVE: Final = "inactive"
CIRCUIT_OPEN: Final = "circuit_open"

_HEALTH_ORDER: Final = ("healthy", "unknown", "degraded", "unhealthy")


#: Begins the name of a destination that is a workflow. No service can be called so; nor is the lane's gate ever shut.
WORKFLOW: Final = "|workflow:"


@dataclass(frozen=True, slots=True)
class Destination:
    """`name` or `name@RANGE`, taken apart."""

    name: str
    range: Range | None = None

    @classmethod
    def parse(cls, text: str) -> Destination:
        """Raises ValueError for a range that is none."""
        name, at, wanted = text.partition("@")
        return cls(name, parse_range(wanted) if at else None)


def in_range(candidates: Sequence[C], wanted: Range | None) -> Sequence[C]:
    """Those whose version is in the range; without one, all."""
    if wanted is None:
        return candidates
    return [candidate for candidate in candidates if wanted.contains(parse_version(candidate.version))]


def choose(candidates: Sequence[C], random: Callable[[], float]) -> C | None:
    """One of the active candidates whose circuit is closed, by health and then by chance in their weights.

    Healthy before unknown before degraded; unhealthy ones only when there is nothing else. `random` in [0, 1).
    """
    usable = [c for c in candidates if c.status == "active" and c.circuit.state == "closed"]
    for health in _HEALTH_ORDER:
        group = [c for c in usable if c.health == health]
        if group:
            return weighted(group, random)
    return None


def probes_due(candidates: Sequence[C], now: float) -> list[C]:
    """The active candidates with an open circuit that one delivery may try now."""
    return [c for c in candidates if c.status == "active" and c.circuit.takes_probe(now)]


def weighted(group: Sequence[C], random: Callable[[], float]) -> C:
    """One of `group` by chance in proportion to weights. A weight of 0 is chosen only among its like."""
    total = sum(c.weight for c in group)
    if total <= 0:
        return group[int(random() * len(group))]
    mark = random() * total
    for candidate in group:
        mark -= candidate.weight
        if mark < 0:
            return candidate
    return next(c for c in reversed(group) if c.weight > 0)


def why_none(registered: Sequence[C], fitting: Sequence[C]) -> str:
    """The reason why `choose` found none among `fitting`, of those `registered` under the name."""
    if not registered:
        return NOT_REGISTERED
    if not fitting:
        return NO_VERSION
    states = {candidate.status for candidate in fitting}
    if "active" in states:
        return CIRCUIT_OPEN
    return MAINTENANCE if "maintenance" in states else INACTIVE
