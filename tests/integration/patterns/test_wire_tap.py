"""Wire tap: a copy for whoever watches, whatever the strategy decides."""

from __future__ import annotations

from tests.integration.patterns.conftest import Scene


def test_a_wire_tap_sees_every_message_while_the_others_take_turns(running: Scene) -> None:
    for name in ("a", "b", "audit"):
        running.service(name)
    running.route(strategy="round_robin", destinations=["a", "b", {"service": "audit", "wireTap": True}])
    for n in range(2):
        running.ended(running.send(n))
    assert len(running.got("a")) == len(running.got("b")) == 1 and running.got("audit", 2) == [0, 1]
