"""Writes of threads that come at the same moment share a statement, and nobody answers for another's fault."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from esb_workers.errors import Unavailable
from esb_workers.store.group import Group


def test_a_single_caller_is_written_at_once() -> None:
    batches: list[Sequence[int]] = []

    def write(items: Sequence[int]) -> list[int]:
        batches.append(items)
        return [i * 2 for i in items]

    assert Group(write).add(21) == 42
    assert batches == [[21]]


def test_those_who_come_while_one_writes_are_written_together() -> None:
    entered, go_on, batches = threading.Event(), threading.Event(), []

    def write(items: Sequence[int]) -> list[int]:
        batches.append(list(items))
        entered.set()
        assert go_on.wait(10)
        return list(items)

    group = Group(write)
    with ThreadPoolExecutor(8) as pool:
        first = pool.submit(group.add, 0)
        assert entered.wait(10)
        others = [pool.submit(group.add, n) for n in range(1, 8)]
        while len(group._waiting) < 7:
            pass
        go_on.set()
        assert first.result(10) == 0
        assert [f.result(10) for f in others] == list(range(1, 8))
    assert batches[0] == [0] and sorted(batches[1]) == list(range(1, 8)) and len(batches) == 2


@given(st.sets(st.integers(0, 39), max_size=5))
def test_every_caller_gets_its_own_result_or_its_own_error(bad: set[int]) -> None:
    def write(items: Sequence[int]) -> list[int]:
        if bad & set(items):
            raise ValueError(sorted(items))
        return [i + 100 for i in items]

    def attempt(group: Group[int, int], number: int) -> int | str:
        try:
            return group.add(number)
        except ValueError as error:
            return str(error)

    group = Group(write, limit=4)
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda n: attempt(group, n), range(40)))
    assert answers == [str([n]) if n in bad else n + 100 for n in range(40)]


def test_a_server_that_is_away_is_asked_once_for_all() -> None:
    calls = 0

    def write(items: Sequence[int]) -> list[int]:
        nonlocal calls
        calls += 1
        raise Unavailable

    group = Group(write)
    with pytest.raises(Unavailable):
        group.add(1)
    assert calls == 1
