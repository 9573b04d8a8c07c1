"""Content enricher: what a service knows is added to the payload, by a call that is remembered for a minute."""

from scene import Scene

with Scene("content-enricher") as scene:
    customers = scene.service("customers", lambda path, body: (200, {"name": f"customer {body['id']}"}))
    desk = scene.service("desk")
    ask = {
        "type": "enrich",
        "service": scene.name("customers"),
        "payload": {"id": "${payload.customer}"},
        "resultPath": "who",
        "cacheSeconds": 60,
    }
    scene.route(transformation=ask, destinations=[scene.name("desk")])
    scene.send({"customer": 7})
    scene.send({"customer": 7})
    assert scene.got(desk, 2)[1] == {"customer": 7, "who": {"name": "customer 7"}}
    assert len(customers.calls) == 1
    print("enriched twice, asked once:", scene.got(desk)[0])
