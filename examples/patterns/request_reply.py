"""Request-reply: wait for the answer in the same request, or have it sent to a service of one's own."""

from scene import Scene

with Scene("request-reply") as scene:
    scene.service("clerk", lambda path, body: (200, {"answer": body["question"] * 2}))
    asker = scene.service("asker")
    scene.route(topic="asked", destinations=[scene.name("clerk")])
    done = scene.send({"question": 21}, topic="asked", replyTo=scene.name("asker"))  # `Prefer: wait`
    assert done["deliveries"][0]["attempts"][0]["responseBody"] == '{"answer": 42}'
    assert scene.got(asker) == [{"answer": 42}]
    print("answered at once, and by a message:", scene.got(asker)[0])
