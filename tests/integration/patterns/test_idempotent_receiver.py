"""Idempotent receiver: a message under one id is taken once, and every try bears one key."""

from __future__ import annotations

from tests.integration.patterns.conftest import Scene
from tests.support.receiver import Reply


def test_a_message_sent_twice_is_taken_once_and_tried_under_one_key(running: Scene) -> None:
    answers = iter([Reply(503), Reply()])
    desk = running.service("desk", lambda hit: next(answers))
    policy = {"maxRetries": 2, "backoffStrategy": "fixed", "initialDelay": 20}
    running.route(destinations=["desk"], retryPolicy=policy)
    assert running.send(1, messageId="m-1") == running.send(1, messageId="m-1") == "m-1"
    assert running.ended("m-1")["status"] == "delivered"
    assert len(desk.hits) == 2 and len({hit.key for hit in desk.hits}) == 1
