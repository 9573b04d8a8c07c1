"""Deliveries by slots that have several calls under way."""

from __future__ import annotations

import json

from tests.support.deliveries import Eventually, World
from tests.support.receiver import Hit, Receiver, Reply


def test_of_calls_that_are_under_way_together_one_that_is_slow_keeps_up_no_other(
    world: World, receiver: Receiver, eventually: Eventually
) -> None:
    """Enough of them, and quick enough, that a slot has several under way (runtime.volley)."""
    slow, failed = {500, 600, 700}, []

    def answer(hit: Hit) -> Reply:
        number = hit.json["n"]
        if number == 400:
            failed.append(number)
        return Reply(503 if number == 400 else 200, delay=1.0 if number in slow else 0.0)

    receiver.answer = answer
    world.service("billing", receiver.url)
    made = [world.deliver("billing", payload=json.dumps({"n": n})) for n in range(800)]
    world.start()
    eventually(lambda: world.sql("select count(*) from delivery where status = 'delivered'") == [(799,)], seconds=60)
    assert sorted(got.headers["webhook-id"] for got in receiver.hits) == sorted(made), "each once"
    assert failed == [400]
    assert world.sql("select count(*) from job where tries = 1") == [(1,)], "it is tried again later"
    assert world.sql("select count(*) from delivery where (last->>'durationMs')::int >= 900") == [(3,)]
