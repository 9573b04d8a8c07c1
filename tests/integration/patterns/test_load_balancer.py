"""Load-balanced and first-available destinations."""

from __future__ import annotations

from tests.integration.patterns.conftest import Scene


def test_round_robin_takes_turns_and_first_available_passes_over_what_is_held(running: Scene) -> None:
    running.service("a")
    running.service("b")
    running.route(name="turns", pattern="turn", strategy="round_robin", destinations=["a", "b"])
    running.route(name="first", pattern="first", strategy="first_available", destinations=["gone", "a"])
    for _ in range(2):
        running.ended(running.send(1, messageType="turn"))
    running.ended(running.send(2, messageType="first"))
    assert running.got("a", 2) == [1, 2] and running.got("b") == [1]
