"""What may leave a group: collections and sequences, decided over any arrivals."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from esb_workers.routing.gathering import GRACE, MAX_BYTES, Waiting, collect, order

ARRIVALS = st.lists(
    st.builds(
        Waiting,
        id=st.uuids().map(str),
        age=st.integers(0, 2000),
        size=st.sampled_from([1, MAX_BYTES // 3]),
        last=st.booleans(),
        number=st.integers(0, 9),
    ),
    max_size=20,
    unique_by=lambda one: one.id,
)


@given(ARRIVALS, st.none() | st.integers(1, 5), st.integers(1, 3000), st.booleans())
def test_each_arrival_is_in_one_collection_or_waits_and_none_is_too_large(
    waiting: list[Waiting], size: int | None, timeout: int, more: bool
) -> None:
    result = collect(waiting, size=size, timeout=timeout, more=more)
    taken = [one for complete in result.sets for one in complete]
    assert taken == waiting[: len(taken)] and result.left == len(waiting) - len(taken)
    assert all(len(complete) <= (size or 20) for complete in result.sets)
    assert all(sum(one.size for one in complete) <= MAX_BYTES for complete in result.sets)
    assert (result.due is None) == (result.left == 0 and not more)


@given(ARRIVALS, st.integers(1, 3000))
def test_what_waits_longer_than_the_timeout_has_left(waiting: list[Waiting], timeout: int) -> None:
    result = collect(waiting, size=None, timeout=timeout)
    left = waiting[len(waiting) - result.left :]
    assert all(one.age < timeout for one in left)


@given(ARRIVALS, st.none() | st.integers(0, 9), st.integers(1, 3000))
def test_a_sequence_goes_out_in_order_and_only_what_is_late_behind_its_number(
    waiting: list[Waiting], next_: int | None, timeout: int
) -> None:
    result = order(waiting, next_, first=None, timeout=timeout)
    numbers = {one.id: one.number for one in waiting}
    sent = [numbers[id_] for id_ in result.send]
    assert sent == sorted(sent)
    left = [one for one in waiting if one.id not in result.send]
    assert (result.due is None) == (not left)
    assert all(one.age < timeout for one in left)
    assert all(result.next is None or one.number > result.next for one in left)


def test_a_one_that_comes_first_waits_a_moment_for_a_nought() -> None:
    one = Waiting("one", age=0, number=1)
    assert order([one], None, first=None, timeout=60_000) == ([], None, GRACE)
    assert order([one], None, first=1, timeout=60_000) == (["one"], 2, None)
    assert order([one._replace(age=GRACE)], None, first=None, timeout=60_000) == (["one"], 2, None)
