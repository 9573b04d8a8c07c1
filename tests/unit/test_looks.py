"""When a pump that has found nothing looks again."""

from __future__ import annotations

import pytest

from esb_workers.runtime.looks import ATTENTIVE, LONGEST_LOOK, LOOK_AGAIN, LOOK_TOLD, TOLD_FOR, Looks

ASLEEP = 10.0


def flowing(per_second: float, *, messages: bool = True) -> tuple[Looks, float]:
    """After three seconds of single rows: the looks, and the moment of the last row."""
    looks, now = Looks(messages=messages, asleep=ASLEEP), 1000.0
    while now < 1003.0:
        looks.found(1, now)
        now += 1 / per_second
    return looks, now - 1 / per_second


def test_a_pool_at_rest_sleeps() -> None:
    assert Looks(messages=True, asleep=ASLEEP).rest(1000.0) == ASLEEP


def test_after_a_row_it_looks_again_for_a_moment_and_then_sleeps() -> None:
    looks = Looks(messages=True, asleep=ASLEEP)
    looks.found(1, 1000.0)
    assert looks.rest(1000.01) == LOOK_AGAIN
    assert looks.rest(1000.0 + ATTENTIVE) == ASLEEP


def test_in_a_steady_flow_it_looks_several_times_for_each_row() -> None:
    looks, now = flowing(100)
    assert looks.steady(now) and not looks.loaded(now)
    assert 3 <= 0.01 / looks.rest(now) <= 10


def test_while_it_is_told_of_rows_it_looks_less() -> None:
    looks, now = flowing(200)
    assert looks.rest(now) < LOOK_AGAIN
    looks.told(now)
    assert looks.rest(now) == LOOK_TOLD
    assert looks.rest(now + TOLD_FOR + 0.001) < LOOK_TOLD


def test_rows_that_nobody_has_told_of_are_looked_for_as_if_nobody_told() -> None:
    """Senders are under load by their own measure: they tell of a row now and then."""
    looks, now = flowing(200)
    looks.told(now)
    looks.found(1, now + 0.001)
    assert looks.rest(now + 0.001) == LOOK_TOLD
    looks.found(1, now + 0.004)
    assert looks.rest(now + 0.004) < LOOK_AGAIN


def test_the_longer_nothing_has_come_the_longer_until_the_next_look() -> None:
    looks, now = flowing(2000)
    rests = [looks.rest(now + silence) for silence in (0.1, 0.2, 0.5)]
    assert rests == sorted(rests) and rests[-1] == LONGEST_LOOK


def test_it_goes_on_looking_for_a_moment_after_the_flow_and_then_sleeps() -> None:
    looks, now = flowing(100)
    while looks.steady(now):
        now += looks.rest(now)
    assert looks.rest(now) == LOOK_AGAIN
    assert looks.rest(now + ATTENTIVE + LONGEST_LOOK) == ASLEEP


@pytest.mark.parametrize("per_second", [100, 200])
def test_a_pool_that_no_messages_pass_knows_no_steady_flow(per_second: float) -> None:
    looks, now = flowing(per_second, messages=False)
    assert not looks.steady(now) and looks.rest(now) == LOOK_AGAIN
