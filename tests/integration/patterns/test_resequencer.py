"""Resequencer: deliveries of one key go out in the order of their numbers, whatever order they came in."""

from __future__ import annotations

from tests.integration.patterns.conftest import Scene
from tests.support.bus import wait_until

IN_ORDER = {"key": "${payload.k}", "sequence": "${payload.n}", "timeout": 20_000}


def test_what_comes_out_of_order_goes_out_in_order(running: Scene) -> None:
    running.service("desk")
    running.route(destinations=["desk"], resequence={**IN_ORDER, "first": 1})
    for n in (3, 1, 2, 5, 4):
        running.send({"k": "a", "n": n})
    assert [body["n"] for body in running.got("desk", 5)] == [1, 2, 3, 4, 5]


def test_a_sequence_may_begin_with_nought_or_one_without_saying_so(running: Scene) -> None:
    running.service("desk")
    running.route(destinations=["desk"], resequence=IN_ORDER)
    for key, numbers in (("a", (1, 2, 0)), ("b", (2, 3, 1))):
        for n in numbers:
            running.send({"k": key, "n": n})
    got = running.got("desk", 6)
    assert [body["n"] for body in got if body["k"] == "a"] == [0, 1, 2]
    assert [body["n"] for body in got if body["k"] == "b"] == [1, 2, 3]


def test_a_gap_is_waited_for_and_then_passed_over(running: Scene) -> None:
    running.service("desk")
    running.route(destinations=["desk"], resequence={**IN_ORDER, "first": 1, "timeout": 600})
    for n in (1, 3, 4):
        running.send({"k": "a", "n": n})
    assert [body["n"] for body in running.got("desk", 3)] == [1, 3, 4]
    late = running.send({"k": "a", "n": 2})
    assert running.ended(late)["status"] == "delivered", "what comes too late goes out at once"


def test_each_key_has_an_order_of_its_own(running: Scene) -> None:
    running.service("desk")
    running.route(destinations=["desk"], resequence={**IN_ORDER, "first": 1})
    waiting = running.send({"k": "a", "n": 2})
    running.send({"k": "b", "n": 1})
    assert running.got("desk") == [{"k": "b", "n": 1}]
    assert running.message(waiting)["status"] in ("accepted", "routed")


def test_where_a_sequence_stands_survives_that_every_worker_is_gone(scene: Scene) -> None:
    scene.service("desk")
    scene.route(destinations=["desk"], resequence={**IN_ORDER, "first": 1})
    with scene.work():
        scene.ended(scene.send({"k": "a", "n": 1}))
        early = scene.send({"k": "a", "n": 3})
        wait_until(lambda: scene.message(early)["status"] == "routed")
    with scene.work():
        scene.send({"k": "a", "n": 2})
        assert [body["n"] for body in scene.got("desk", 3)] == [1, 2, 3]


def test_what_is_no_number_is_a_dead_letter_with_the_reason(running: Scene) -> None:
    running.route(destinations=["desk"], resequence=IN_ORDER)
    (delivery,) = running.ended(running.send({"k": "a", "n": "x"}))["deliveries"]
    assert delivery["errorClass"] == "TransformationError" and "resequence.sequence" in delivery["reason"]


def test_a_resequencer_needs_a_sequence(scene: Scene) -> None:
    assert scene.faults(resequence={"key": "k"}) == {"resequence.sequence"}
    assert scene.faults(resequence=IN_ORDER, aggregate={"size": 2}) == {"aggregate"}
