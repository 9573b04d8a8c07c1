"""Splitter: one message becomes one for each item of a list."""

from __future__ import annotations

from tests.integration.patterns.conftest import Scene

ORDER = {"id": "o-1", "lines": [{"sku": "apple", "n": 2}, {"sku": "pear", "n": 1}, {"sku": "fig", "n": 5}]}
SPLIT = {"items": "${payload.lines}"}


def test_each_item_becomes_a_delivery_of_its_own(running: Scene) -> None:
    running.service("stock")
    running.route(destinations=["stock"], split=SPLIT)
    shown = running.ended(running.send(ORDER))
    assert shown["status"] == "delivered" and len(shown["deliveries"]) == 3
    hits = sorted(running.services["stock"].hits, key=lambda hit: hit.headers["ce-id"])
    assert [hit.json for hit in hits] == ORDER["lines"]
    assert [hit.headers["ce-id"] for hit in hits] == [f"{shown['messageId']}-{index}" for index in range(3)]
    assert len({hit.key for hit in hits}) == 3


def test_item_and_index_are_in_scope_beside_the_whole_payload(running: Scene) -> None:
    running.service("stock")
    template = {"type": "template", "output": {"order": "${payload.id}", "line": "${index}", "sku": "${item.sku}"}}
    running.route(destinations=["stock"], split=SPLIT, transformation=template)
    running.ended(running.send(ORDER))
    got = sorted(running.got("stock", 3), key=lambda body: body["line"])
    assert got[1] == {"order": "o-1", "line": 1, "sku": "pear"}


def test_transformations_act_on_the_item_and_destinations_choose_among_items(running: Scene) -> None:
    running.service("few")
    running.service("many")
    running.route(
        split=SPLIT,
        destinations=[
            {"service": "few", "condition": "item.n < 3", "transformation": {"type": "pick", "fields": ["sku"]}},
            {"service": "many", "condition": "item.n >= 3", "path": "${payload.id}/lines/${index}/${item.sku}"},
        ],
    )
    running.ended(running.send(ORDER))
    assert sorted(body["sku"] for body in running.got("few", 2)) == ["apple", "pear"]
    assert running.got("many") == [{"sku": "fig", "n": 5}]
    assert running.services["many"].hits[0].path == "/o-1/lines/2/fig"


def test_what_is_no_list_is_a_dead_letter_with_the_reason_and_never_goes_out_whole(running: Scene) -> None:
    running.service("stock")
    running.route(destinations=["stock"], split=SPLIT)
    shown = running.ended(running.send({"lines": 7}))
    assert shown["status"] == "failed"
    (delivery,) = shown["deliveries"]
    assert delivery["errorClass"] == "TransformationError" and "not a list" in delivery["reason"]
    assert running.api.post(f"/routing/deliveries/{delivery['id']}/retry").status_code == 200
    assert running.ended(shown["id"])["status"] == "failed"
    assert running.services["stock"].hits == []


def test_an_empty_list_leaves_nothing_to_deliver_and_says_so(running: Scene) -> None:
    running.route(destinations=["stock"], split=SPLIT)
    shown = running.ended(running.send({"lines": []}))
    assert shown["status"] == "unroutable" and "an empty list" in shown["reason"]


def test_a_dry_run_shows_each_part(scene: Scene) -> None:
    scene.route(destinations=["stock"], split=SPLIT)
    verdict = scene.api.post("/routing/test", {"message": {"messageType": "order.placed", "payload": ORDER}}).json[
        "items"
    ][0]
    assert verdict["matched"] and verdict["destinations"] == ["stock"]
    assert [(form["index"], form["payload"]["sku"]) for form in verdict["deliveries"]] == [
        (0, "apple"), (1, "pear"), (2, "fig"),
    ]  # fmt: skip


def test_a_split_that_says_nothing_or_too_much_is_refused(scene: Scene) -> None:
    assert scene.faults(split={}) == {"split.items"}
    assert scene.faults(split={"items": "${payload.", "of": 1}) == {"split.items", "split.of"}
