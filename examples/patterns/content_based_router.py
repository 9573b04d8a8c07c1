"""Content-based router and message filter: what a message says decides who gets it, and whether anybody does."""

from scene import Scene

with Scene("content-based-router") as scene:
    eu, world = scene.service("eu"), scene.service("world")
    scene.route("eu", conditions={"payload.country": ["SE", "DE"]}, destinations=[scene.name("eu")])
    scene.route("rest", default=True, destinations=[scene.name("world")])  # takes what no other route took
    scene.route("large", topic="large", filter="payload.total > 1000", destinations=[scene.name("eu")])
    scene.send({"country": "SE"})
    scene.send({"country": "US"})
    assert scene.got(eu) == [{"country": "SE"}]
    assert scene.got(world) == [{"country": "US"}]
    print("SE went to eu, US to the default route")
