"""The quick drills in their short form: those that break what breaks most often. All of them: python -m tests.drills."""

from __future__ import annotations

import pytest

from tests.drills.catalogue import Drill, catalogue, run


@pytest.mark.parametrize("drill", [d for d in catalogue() if d.quick], ids=lambda d: d.name)
def test_a_fault_loses_nothing_and_doubles_nothing(drill: Drill) -> None:
    result = run(drill, quick=True)
    if result.not_run:
        pytest.skip(result.not_run)
    assert not result.violations, "\n".join([*map(str, result.violations), *result.notes])
    assert result.accepted > 0 and result.arrived >= result.accepted
