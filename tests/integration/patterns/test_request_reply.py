"""Request-reply: the answer in the same request, or as a message to a service of one's own."""

from __future__ import annotations

from tests.integration.patterns.conftest import Scene
from tests.support.receiver import Reply


def test_the_answer_comes_back_in_the_request_and_as_a_message(running: Scene) -> None:
    running.service("clerk", lambda hit: Reply.json({"answer": hit.json * 2}))
    running.service("asker")
    running.route(pattern="asked", destinations=["clerk"])
    body = {"source": "s", "messageType": "asked", "payload": 21, "replyTo": "asker", "correlationId": "c-1"}
    done = running.api.post("/routing/send", body, Prefer="wait=10")
    assert done.status_code == 200 and done.headers["Preference-Applied"] == "wait=10"
    assert done.json["deliveries"][0]["attempts"][0]["responseBody"] == '{"answer": 42}'
    assert running.got("asker") == [{"answer": 42}]
    reply = running.services["asker"].hits[0].headers
    assert (reply["ce-type"], reply["x-correlation-id"]) == ("asked.reply", "c-1")
