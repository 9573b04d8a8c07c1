"""When a pool is told of rows."""

from __future__ import annotations

from typing import Any

import pytest

from esb_workers.runtime.teller import Teller


class Spy:
    """A cursor that notes what it is to execute."""

    def __init__(self) -> None:
        self.told: list[Any] = []

    def execute(self, statement: str, values: Any) -> None:
        self.told.append(values)


@pytest.fixture
def cursor() -> Any:
    return Spy()


def test_a_pool_is_told_of_a_row_while_little_is_to_do(cursor: Any) -> None:
    Teller("delivery").committed(cursor, 1)
    Teller("routing").committed(cursor, 2)
    assert cursor.told == [("esb_delivery", ""), ("esb_routing", "")]


def test_nobody_is_told_of_nothing(cursor: Any) -> None:
    Teller("delivery").committed(cursor, 0)
    assert cursor.told == []


def test_under_load_nobody_is_told(cursor: Any) -> None:
    teller = Teller("delivery")
    for _ in range(100):
        teller.committed(cursor, 1)
    assert 0 < len(cursor.told) < 100
