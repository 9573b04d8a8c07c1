"""Message history: every hop of a message, in order."""

from __future__ import annotations

from tests.integration.patterns.conftest import Scene
from tests.support.receiver import Reply


def test_the_timeline_tells_every_hop(running: Scene) -> None:
    answers = iter([Reply(503), Reply.json({"n": 1})])
    running.service("a", lambda hit: next(answers))
    running.service("b")
    policy = {"maxRetries": 2, "backoffStrategy": "fixed", "initialDelay": 20}
    running.route(slip=["a", "b"], retryPolicy=policy)
    lines = running.ended(running.send({}))["timeline"]
    assert [line["seq"] for line in lines] == list(range(1, len(lines) + 1))
    assert [(line["type"], line["destination"]) for line in lines] == [
        ("message.accepted", None),
        ("message.routed", None),
        ("delivery.attempted", "a"),
        ("delivery.attempted", "a"),
        ("delivery.delivered", "a"),
        ("delivery.attempted", "b"),
        ("delivery.delivered", "b"),
        ("message.delivered", None),
    ]
