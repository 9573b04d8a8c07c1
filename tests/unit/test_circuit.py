"""When a circuit opens, and for how long."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from esb_workers.registry.circuit import Circuit, Figures, Tally, pause_seconds


def test_it_opens_at_the_fifth_failure_in_a_row() -> None:
    assert [Figures(n, 100, n).opens() for n in range(1, 6)] == [False, False, False, False, True]


def test_it_opens_when_half_of_at_least_ten_attempts_failed() -> None:
    assert Figures(1, 5, 5).opens()
    assert not Figures(1, 6, 5).opens()
    assert not Figures(1, 4, 5).opens(), "nine are too few"


@given(st.lists(st.booleans(), max_size=50))
def test_a_tally_knows_the_failures_after_the_last_attempt_that_was_well(outcomes: list[bool]) -> None:
    tally = Tally()
    for ok in outcomes:
        tally.add(ok)
    trailing = len(outcomes) - max((n for n, ok in enumerate(outcomes, 1) if ok), default=0)
    assert (tally.ok, tally.failed, tally.trailing) == (outcomes.count(True), outcomes.count(False), trailing)


def test_the_pause_doubles_from_ten_seconds_to_five_minutes() -> None:
    assert [pause_seconds(n) for n in range(1, 8)] == [10, 20, 40, 80, 160, 300, 300]
    assert pause_seconds(10_000) == 300


def test_an_open_circuit_takes_a_probe_when_its_pause_is_over_and_another_when_the_prober_vanished() -> None:
    circuit = Circuit().opened(100)
    assert not circuit.takes_probe(109.9)
    assert circuit.takes_probe(110)
    probing = circuit.probing(110, lease=20)
    assert not probing.takes_probe(129)
    assert probing.takes_probe(130)
    assert probing.opened(115).until == 135
    assert probing.closed() == Circuit()


def test_a_closed_circuit_needs_no_probe() -> None:
    assert not Circuit().takes_probe(1e9)
