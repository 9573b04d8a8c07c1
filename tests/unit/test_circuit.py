"""When a circuit opens, and for how long."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from esb_workers.registry.circuit import Circuit, Window, pause_seconds


def test_it_opens_at_the_fifth_failure_in_a_row() -> None:
    window = Window()
    assert [window.record(False, at) for at in range(5)] == [False, False, False, False, True]


def test_a_success_between_begins_the_count_anew() -> None:
    window = Window()
    outcomes = [False, False, False, False, True, False, False, False]
    assert not any(window.record(ok, at * 10.0) for at, ok in enumerate(outcomes))


def test_it_opens_when_half_of_ten_attempts_in_thirty_seconds_failed() -> None:
    window = Window()
    opened = [window.record(n % 2 == 0, n * 1.0) for n in range(10)]
    assert opened == [False] * 9 + [True]


def test_attempts_older_than_thirty_seconds_do_not_count() -> None:
    window = Window()
    assert not any(window.record(n % 2 == 0, n * 4.0) for n in range(100))


def test_a_success_never_opens_it() -> None:
    window = Window()
    for n in range(9):
        window.record(n % 2 == 0, n * 1.0)
    window.record(False, 9.0)
    assert not window.record(True, 9.5)


def test_ten_attempts_are_too_few_while_fewer_than_half_failed() -> None:
    window = Window()
    assert not any(window.record(n % 5 != 0, n * 0.1) for n in range(200))


@given(st.lists(st.tuples(st.booleans(), st.floats(0, 5)), max_size=80))
def test_it_opens_exactly_by_its_two_rules(steps: list[tuple[bool, float]]) -> None:
    window, seen, at = Window(), [], 0.0
    for ok, pause in steps:
        at += pause
        seen.append((at, ok))
        recent = [good for moment, good in seen if moment > at - 30]
        in_a_row = len(seen) >= 5 and not any(good for _, good in seen[-5:])
        half = len(recent) >= 10 and recent.count(False) * 2 >= len(recent)
        assert window.record(ok, at) == (not ok and (in_a_row or half))


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
