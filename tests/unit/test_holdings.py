"""What a process holds, and what of it may have killed another."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from esb_workers.runtime.holdings import SUSPECT, Holdings, of


def claim(name: str, losses: int = 0) -> Any:
    return SimpleNamespace(id=name, attempt=1, losses=losses)


def ids(claims: list[Any]) -> set[str]:
    return {one.id for one in claims}


def test_of_rows_that_may_have_killed_a_worker_one_is_kept_at_a_time() -> None:
    holdings, suspects = Holdings(), [claim(name, SUSPECT) for name in "xyz"]
    kept, others = holdings.with_one_suspect([claim("a"), *suspects])
    assert ids(kept) > {"a"} and len(kept) == 2 and len(others) == 2
    holdings.take(kept)
    again, back = holdings.with_one_suspect([claim("b"), claim("w", SUSPECT)])
    assert (ids(again), [held.id for held in back]) == ({"b"}, ["w"])
    holdings.let_go(kept)
    assert ids(holdings.with_one_suspect([claim("w", SUSPECT)])[0]) == {"w"}


def test_what_the_database_takes_to_be_ours_and_is_not_is_unknown_and_whether_it_was_begun_is_told() -> None:
    holdings, ours, begun, never = Holdings(), claim("ours"), claim("begun"), claim("never")
    holdings.take([ours, begun])
    holdings.let_go([begun], lost=True)
    assert holdings.unknown([of(one) for one in (ours, begun, never)]) == {of(begun): True, of(never): False}
    assert holdings.unknown([of(begun)]) == {of(begun): True}, "until it is given back"
    holdings.given_back([of(begun)])
    assert holdings.unknown([of(begun)]) == {of(begun): False}


def test_in_a_new_life_what_the_old_one_has_lost_does_not_count() -> None:
    holdings, begun = Holdings(), claim("begun")
    holdings.take([begun])
    holdings.let_go([begun], lost=True)
    holdings.begin_anew()
    assert holdings.unknown([of(begun)]) == {of(begun): False}
