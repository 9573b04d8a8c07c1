"""There are twenty-two drills, found by name and by number."""

from __future__ import annotations

import pytest

from tests.drills.catalogue import catalogue, chosen
from tests.drills.checker import Violation
from tests.drills.report import Result, row_of, table


def test_there_are_twenty_two_numbered_from_one() -> None:
    assert [d.number for d in catalogue()] == list(range(1, 23))


def test_a_drill_is_found_by_name_and_by_number() -> None:
    assert [d.name for d in chosen(("7", "bells"))] == ["database-restart", "bells"]
    with pytest.raises(KeyError):
        chosen(("earthquake",))


def test_a_drill_that_was_not_run_has_not_passed() -> None:
    ran, skipped, broken = (
        Result(accepted=5, recovery=1.25),
        Result(not_run="needs root"),
        Result(violations=[Violation("I1", "x")]),
    )
    assert (ran.passed, skipped.passed, broken.passed) == (True, False, False)
    assert row_of(1, "a", "b", [ran, ran])[-1] == "passed 2/2"
    assert row_of(1, "a", "b", [ran, broken])[-1] == "FAILED 1/2"
    assert row_of(1, "a", "b", [skipped])[-1] == "not run"
    assert "1.2" in table([row_of(1, "a", "b", [ran])])
