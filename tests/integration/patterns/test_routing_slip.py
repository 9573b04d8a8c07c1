"""Routing slip and detour: stops one after another, each sent what the one before has answered."""

from __future__ import annotations

from tests.integration.patterns.conftest import Scene
from tests.support.bus import wait_until
from tests.support.receiver import Hit, Reply


def add(name: str) -> object:
    return lambda hit: Reply.json(hit.json | {"seen": [*hit.json.get("seen", []), name]})


def test_each_stop_is_sent_the_answer_of_the_one_before(running: Scene) -> None:
    for name in ("a", "b", "c"):
        running.service(name, add(name))  # type: ignore[arg-type]
    running.route(slip="${payload.slip}")
    shown = running.ended(running.send({"slip": ["a", "b", "c"]}))
    assert shown["status"] == "delivered"
    assert [delivery["destination"] for delivery in shown["deliveries"]] == ["a", "b", "c"]
    assert running.services["c"].hits[0].json["seen"] == ["a", "b"]
    assert len({running.services[name].hits[0].key for name in "abc"}) == 3


def test_a_stop_that_answers_nothing_leaves_the_message_as_it_is(running: Scene) -> None:
    running.service("a", lambda hit: Reply(204, b""))
    running.service("b")
    running.route(slip=["a", "b"])
    running.ended(running.send({"n": 1}, headers={"region": "eu"}))
    assert running.got("b") == [{"n": 1}]
    assert running.services["b"].hits[0].headers["region"] == "eu"


def test_a_detour_is_a_stop_that_only_some_messages_make(running: Scene) -> None:
    running.service("check", add("check"))  # type: ignore[arg-type]
    running.service("orders")
    running.route(slip="${payload.total > 1000 ? ['check', 'orders'] : ['orders']}")
    running.ended(running.send({"total": 5}))
    running.ended(running.send({"total": 5000}))
    assert [body.get("seen") for body in running.got("orders", 2)] == [None, ["check"]]


def test_a_stop_that_fails_holds_the_slip_until_it_is_retried(running: Scene) -> None:
    broken = [True]

    def answer(hit: Hit) -> Reply:
        return Reply(400) if broken[0] else Reply.json({"mended": True})

    running.service("a", answer)
    running.service("b")
    running.route(slip=["a", "b"])
    shown = running.ended(running.send({}))
    (delivery,) = shown["deliveries"]
    assert delivery["status"] == "dead" and running.services["b"].hits == []
    broken[0] = False
    running.api.post(f"/routing/deliveries/{delivery['id']}/retry")
    assert running.got("b") == [{"mended": True}]
    wait_until(lambda: running.message(shown["id"])["status"] == "delivered")


def test_the_reply_is_the_answer_of_the_last_stop(running: Scene) -> None:
    running.service("a", add("a"))  # type: ignore[arg-type]
    running.service("b", add("b"))  # type: ignore[arg-type]
    running.service("asker")
    running.route(slip=["a", "b"], pattern="ask")
    running.send({}, messageType="ask", replyTo="asker")
    assert running.got("asker") == [{"seen": ["a", "b"]}]


def test_messages_of_one_key_make_every_stop_in_order(running: Scene) -> None:
    running.service("a", lambda hit: Reply.json(hit.json))
    running.service("b")
    running.route(slip=["a", "b"])
    for n in range(8):
        running.send({"n": n}, orderingKey="k")
    assert [body["n"] for body in running.got("b", 8)] == list(range(8))


def test_nothing_starts_when_the_grant_does_not_cover_the_whole_slip(running: Scene) -> None:
    running.service("a")
    running.route(slip=["a", "b"])
    key = running.api.post("/clients", {"name": "shop", "allowedServices": ["a"]}).json["apiKey"]
    sent = running.api.with_key(key).post("/routing/send", {"source": "s", "messageType": "t", "payload": 1}).json
    shown = running.ended(sent["messageId"])
    assert [(d["destination"], d["status"]) for d in shown["deliveries"]] == [("b", "forbidden")]
    assert running.services["a"].hits == []


def test_an_answer_that_is_too_long_to_go_on_is_a_dead_letter(running: Scene) -> None:
    running.service("a", lambda hit: Reply(200, b'"' + b"x" * (2 << 20) + b'"'))
    running.service("b")
    running.route(slip=["a", "b"])
    (delivery,) = running.ended(running.send({}))["deliveries"]
    assert (delivery["status"], delivery["errorClass"]) == ("dead", "AnswerTooLarge")


def test_a_slip_goes_with_nothing_that_says_otherwise_where_to_go(scene: Scene) -> None:
    assert scene.faults(slip=["a"], strategy="round_robin") == {"slip"}
    assert scene.faults(slip=7) == {"slip"}


def test_a_stops_own_form_and_path_ask_lookup_tables_when_its_turn_comes(running: Scene) -> None:
    running.api.post("/routing/lookup-tables", {"name": "regions", "entries": {"eu": "europe"}})
    running.service("a", lambda hit: Reply.json({"region": "eu"}))
    running.service("b")
    shaped = {"type": "set", "fields": {"name": "${lookup('regions', payload.region)}"}}
    path = "/in/${lookup('regions', payload.region)}"
    running.route(slip=["a", "b"], destinations=[{"service": "b", "transformation": shaped, "path": path}])
    running.ended(running.send({}))
    assert running.got("b") == [{"region": "eu", "name": "europe"}]
    assert running.services["b"].hits[0].path == "/in/europe"
