"""Dead-letter channel: what ended dead is sent to the service that its route names for it."""

from __future__ import annotations

from esb_workers.store import jobs
from tests.integration.patterns.conftest import Scene
from tests.support.receiver import Reply


def offer(scene: Scene) -> int:
    """What the scheduler does at every tick."""
    with scene.database.cursor() as cursor:
        return jobs.offer_dead_letters(cursor)


def test_the_service_gets_the_message_as_it_came_in_and_is_told_what_happened(running: Scene) -> None:
    running.service("desk", lambda hit: Reply(400))
    morgue = running.service("morgue")
    shaped = {"type": "template", "output": "something else"}
    running.route(destinations=["desk"], deadLetter="morgue", transformation=shaped)
    shown = running.ended(running.send({"n": 1}, headers={"region": "eu"}))
    assert offer(running) == 1 and offer(running) == 0
    assert running.got("morgue") == [{"n": 1}]
    told = morgue.hits[0].headers
    assert (told["region"], told["esb-dead-route"], told["esb-dead-destination"]) == ("eu", "route", "desk")
    assert (told["esb-dead-class"], told["esb-dead-delivery"]) == ("HttpStatus.400", shown["deliveries"][0]["id"])
    assert running.message(shown["id"])["status"] == "failed", "the dead letter stays, to be replayed"


def test_what_could_not_be_transformed_or_split_goes_there_too_and_nothing_goes_round_in_circles(
    running: Scene,
) -> None:
    running.service("morgue", lambda hit: Reply(400))
    running.route(destinations=["desk"], deadLetter="morgue", split={"items": "${payload.lines}"})
    running.ended(running.send({"lines": 7}))
    assert offer(running) == 1
    hit = running.got("morgue") and running.services["morgue"].hits[0]
    assert hit and "not%20a%20list" in hit.headers["esb-dead-reason"]
    copy = next(item for item in running.api.get("/routing/logs").json["items"] if item["replayOf"])
    assert running.ended(copy["id"])["status"] == "failed"
    assert offer(running) == 0


def test_a_route_without_one_sends_nothing_and_a_bad_name_is_refused(running: Scene) -> None:
    running.service("desk", lambda hit: Reply(400))
    running.route(destinations=["desk"])
    running.ended(running.send(1))
    assert offer(running) == 0
    assert running.faults(name="w", deadLetter="no such name!") == {"deadLetter"}
