"""Scatter-gather: a question goes to many; their answers come back as messages, and are collected into one."""

from scene import Scene

with Scene("scatter-gather") as scene:

    def supplier(name: str, price: int) -> object:
        def offer(_path: str, body: dict[str, str]) -> tuple[int, object]:
            answer = {"supplier": name, "price": price}
            scene.send(answer, topic="offer", wait=0, correlationId=body["question"])
            return 200, {}

        return scene.service(name, offer)

    supplier("north", 30)
    supplier("south", 20)
    buyer = scene.service("buyer")
    scene.route("ask", topic="asked", destinations=[scene.name("north"), scene.name("south")])
    # Two offers to one question, or what has come after five seconds.
    best = {"type": "template", "output": {"offers": "${payload}", "of": "${size(payload)}"}}
    scene.route("gather", topic="offer", aggregate={"key": "${correlationId}", "size": 2, "timeout": 5000},
                destinations=[{"service": scene.name("buyer"), "transformation": best}])  # fmt: skip
    scene.send({"question": "q-1"}, topic="asked", correlationId="q-1")
    (answer,) = scene.got(buyer)
    assert sorted(offer["price"] for offer in answer["offers"]) == [20, 30]
    print("offers:", answer["offers"])
