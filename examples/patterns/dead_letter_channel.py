"""Dead-letter channel: what ended dead is sent to a service that the route names for it."""

from scene import Scene

with Scene("dead-letter-channel") as scene:
    scene.service("desk", lambda path, body: (400, {"error": "no such customer"}))
    support = scene.service("support")
    scene.route(destinations=[scene.name("desk")], deadLetter=scene.name("support"))
    sent = scene.send({"customer": 7})
    assert sent["status"] == "failed"
    assert scene.got(support) == [{"customer": 7}]
    print("support was told:", support.calls[0][1]["esb-dead-class"])
