"""Which instance of a service is chosen."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from esb_workers.registry.circuit import Circuit
from esb_workers.registry.selection import Destination, choose, in_range, probes_due, why_none

CLOSED = Circuit()
OPEN = Circuit("open", 1, 50.0)


@dataclass(frozen=True)
class Instance:
    version: str = "1.0.0"
    weight: int = 1
    status: str = "active"
    health: str = "unknown"
    circuit: Circuit = CLOSED


def pick(*instances: Instance, seed: int = 1) -> Instance | None:
    return choose(instances, Random(seed).random)


def test_healthy_ones_come_before_unknown_before_degraded_before_unhealthy() -> None:
    order = [Instance(health=health) for health in ("healthy", "unknown", "degraded", "unhealthy")]
    for first in range(4):
        assert pick(*reversed(order[first:])) == order[first]


@pytest.mark.parametrize(
    "instance", [Instance(status="maintenance"), Instance(status="inactive"), Instance(circuit=OPEN)]
)
def test_only_active_ones_with_a_closed_circuit_are_chosen(instance: Instance) -> None:
    assert pick(instance) is None
    assert pick(instance, Instance(health="unhealthy")) == Instance(health="unhealthy")


def test_choices_follow_the_weights() -> None:
    heavy, light, none = Instance(weight=3, version="3.0.0"), Instance(weight=1), Instance(weight=0, version="0.0.0")
    random = Random(7)
    counts = Counter(chosen for _ in range(4000) if (chosen := choose([light, none, heavy], random.random)))
    assert counts[none] == 0
    assert 2.5 < counts[heavy] / counts[light] < 3.5


def test_weights_of_zero_are_alike_among_themselves() -> None:
    assert pick(Instance(weight=0)) == Instance(weight=0)


instances = st.builds(
    Instance,
    weight=st.integers(0, 5),
    status=st.sampled_from(["active", "maintenance", "inactive"]),
    health=st.sampled_from(["healthy", "unknown", "degraded", "unhealthy"]),
    circuit=st.sampled_from([CLOSED, OPEN]),
)


@given(st.lists(instances, max_size=8), st.floats(0, 1, exclude_max=True))
def test_one_is_chosen_whenever_any_is_usable_and_none_else(there: list[Instance], chance: float) -> None:
    chosen = choose(there, lambda: chance)
    usable = [i for i in there if i.status == "active" and i.circuit.state == "closed"]
    assert (chosen is None) == (not usable)
    assert chosen is None or chosen in usable


def test_an_open_circuit_asks_for_a_probe_when_its_time_has_come() -> None:
    there = [Instance(circuit=OPEN), Instance(), Instance(circuit=OPEN, status="inactive")]
    assert probes_due(there, 49.0) == []
    assert probes_due(there, 50.0) == [there[0]]


def test_a_destination_is_a_name_or_a_name_and_a_range() -> None:
    there = [Instance("1.2.0"), Instance("2.0.0"), Instance("2.1.0-beta")]
    assert in_range(there, Destination.parse("billing").range) == there
    assert in_range(there, Destination.parse("billing@^1").range) == there[:1]
    assert in_range(there, Destination.parse("billing@").range) == there[:2]
    assert Destination.parse("billing@>=1 <2").name == "billing"
    with pytest.raises(ValueError):
        Destination.parse("billing@latest")


def test_the_reason_for_no_choice_is_told() -> None:
    down = [Instance(status="maintenance"), Instance(status="inactive")]
    assert why_none([], []) == "not_registered"
    assert why_none(down, []) == "no_matching_version"
    assert why_none(down, down) == "maintenance"
    assert why_none(down, down[1:]) == "inactive"
    assert why_none(down, [Instance(circuit=OPEN)]) == "circuit_open"
