"""Load-balanced and first-available destinations."""

from scene import Scene

with Scene("load-balancer") as scene:
    primary, spare = scene.service("primary"), scene.service("spare")
    both = [scene.name("primary"), scene.name("spare")]
    scene.route("turns", topic="turn", strategy="round_robin", destinations=both)
    # A service that nothing is registered under is held: the next one in the list takes its deliveries.
    scene.route("first", topic="first", strategy="first_available", destinations=[scene.name("gone"), *both])
    scene.send(1, topic="turn")
    scene.send(2, topic="turn")
    scene.send(3, topic="first")
    assert len(scene.got(primary, 2)) == 2 and len(scene.got(spare)) == 1
    print("in turn, and then the first that could be reached")
