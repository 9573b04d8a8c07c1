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


class Said:
    """A voice that notes what it is to say, and can say it or not."""

    def __init__(self, *, can: bool) -> None:
        self.can = can
        self.said: list[str] = []

    def say(self, channel: str) -> bool:
        self.said.append(channel)
        return self.can


@pytest.fixture
def cursor() -> Any:
    return Spy()


@pytest.fixture
def mute() -> Any:
    return Said(can=False)


def test_a_pool_is_told_of_a_row_while_little_is_to_do(cursor: Any) -> None:
    voice: Any = Said(can=True)
    Teller("delivery", voice).committed(cursor, 1)
    Teller("routing", voice).committed(cursor, 2)
    assert voice.said == ["esb_delivery", "esb_routing"]
    assert cursor.told == [], "once is enough"


def test_where_redis_cannot_carry_the_word_the_database_does(cursor: Any, mute: Any) -> None:
    Teller("delivery", mute).committed(cursor, 1)
    Teller("routing", mute).committed(cursor, 2)
    assert cursor.told == [("esb_delivery", ""), ("esb_routing", "")]


def test_nobody_is_told_of_nothing(cursor: Any, mute: Any) -> None:
    Teller("delivery", mute).committed(cursor, 0)
    assert mute.said == cursor.told == []


def test_under_load_nobody_is_told(cursor: Any, mute: Any) -> None:
    teller = Teller("delivery", mute)
    for _ in range(100):
        teller.committed(cursor, 1)
    assert 0 < len(cursor.told) < 100
