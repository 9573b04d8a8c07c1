"""Callback tokens: read by whoever has the key that sealed them, and by nobody else."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from esb_workers.orchestration.callbacks import Callbacks, Target

ID = "01a21396-2873-736b-94c9-3692a4ee1cdc"
NEW, OLD, OTHER = (Callbacks((key,), "http://bus") for key in ("new", "old", "other"))


@given(st.text(min_size=1, max_size=50), st.integers(0, 2**32 - 1))
def test_a_token_names_the_visit_it_answers(path: str, iteration: int) -> None:
    target = Target(ID, path, iteration)
    assert NEW.read(NEW.token(target)) == target
    assert OTHER.read(NEW.token(target)) is None


def test_a_token_outlives_the_rotation_of_the_key() -> None:
    target = Target(ID, "f[3]/ask", 0)
    assert Callbacks(("new", "old"), "http://bus").read(OLD.token(target)) == target


@given(st.text(max_size=80))
def test_what_is_no_token_is_read_as_none(text: str) -> None:
    assert NEW.read(text) is None


@given(st.integers(0, 90), st.sampled_from("AQgw"))
def test_a_token_that_was_touched_is_none(at: int, letter: str) -> None:
    token = NEW.token(Target(ID, "answer-of-the-customer", 1))
    touched = token[:at] + letter + token[at + 1 :]
    assert NEW.read(touched) is None or touched[: len(token) - 1] == token[:-1]
