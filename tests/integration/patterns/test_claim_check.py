"""Claim check: of a large payload a receipt is sent, by which the receiver fetches it from the bus."""

from __future__ import annotations

from urllib.parse import urlsplit

import pytest

from tests.integration.patterns.conftest import Scene
from tests.support.receiver import Reply

CHECK = {"type": "claim_check", "thresholdBytes": 100}
LARGE = {"text": "x" * 200}


def fetched(scene: Scene, url: str) -> tuple[int, object]:
    parts = urlsplit(url)
    answer = scene.api.with_key(None).get(f"{parts.path}?{parts.query}")
    return answer.status_code, answer.json


@pytest.mark.parametrize("form", ["binary", "structured"])
def test_the_receiver_gets_a_receipt_and_fetches_the_payload_without_a_key(running: Scene, form: str) -> None:
    desk = running.service("desk", delivery={"format": form})
    shaped = [{"type": "set", "fields": {"n": 1}}, CHECK]
    running.route(destinations=[{"service": "desk", "transformation": shaped}])
    running.ended(running.send(LARGE))
    (hit,) = desk.hits
    receipt = hit.json["data"] if form == "structured" else hit.json
    dataref = hit.json["dataref"] if form == "structured" else hit.headers["ce-dataref"]
    assert receipt == {"dataref": dataref, "bytes": len('{"text":"","n":1}') + 200}
    assert dataref.startswith(running.settings.base_url)
    assert fetched(running, dataref) == (200, LARGE | {"n": 1})


def test_a_small_payload_goes_out_itself(running: Scene) -> None:
    desk = running.service("desk")
    running.route(destinations=["desk"], transformation=CHECK)
    running.ended(running.send({"n": 1}))
    assert desk.hits[0].json == {"n": 1} and "ce-dataref" not in desk.hits[0].headers


def test_a_wrong_token_is_not_found_and_a_redacted_payload_is_gone(running: Scene) -> None:
    desk = running.service("desk")
    running.route(destinations=["desk"], transformation=CHECK)
    shown = running.ended(running.send(LARGE))
    url = desk.hits[0].json["dataref"]
    assert fetched(running, url)[0] == 200
    assert fetched(running, url + "x")[0] == 404
    assert fetched(running, url.partition("?")[0])[0] == 422
    assert running.api.delete(f"/routing/messages/{shown['id']}/payload").status_code == 204
    assert fetched(running, url)[0] == 404


def test_what_is_enriched_can_be_checked_too(running: Scene) -> None:
    running.service("customers", lambda hit: Reply.json({"who": "ann"}))
    desk = running.service("desk")
    running.route(destinations=["desk"], transformation=[{"type": "enrich", "service": "customers"}, CHECK])
    running.ended(running.send(LARGE))
    assert fetched(running, desk.hits[0].json["dataref"]) == (200, LARGE | {"who": "ann"})


def test_a_claim_check_comes_last_and_where_it_takes_effect(scene: Scene) -> None:
    shaped = {"service": "a", "transformation": {"type": "drop", "fields": ["x"]}}
    assert scene.faults(transformation=[CHECK, CHECK]) == {"transformation[0]"}
    assert scene.faults(transformation={"type": "claim_check", "thresholdBytes": -1}) == {
        "transformation.thresholdBytes"
    }
    assert scene.faults(transformation=CHECK, strategy="first_available") == {"strategy"}
    assert scene.faults(transformation=CHECK, aggregate={"size": 2}) == {"transformation"}
    assert scene.faults(transformation=CHECK, destinations=[shaped]) == {"transformation"}
