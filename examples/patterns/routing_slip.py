"""Routing slip and detour: stops one after another; some messages make one more."""

from scene import Scene

with Scene("routing-slip") as scene:
    check = scene.service("check", lambda path, body: (200, body | {"checked": True}))
    store = scene.service("store")
    scene.route(slip="${payload.total > 1000 ? ['routing-slip-check', 'routing-slip-store'] : ['routing-slip-store']}")
    scene.send({"total": 5})
    scene.send({"total": 5000})
    assert scene.got(store, 2) == [{"total": 5}, {"total": 5000, "checked": True}]
    print("the large one went by way of the check:", scene.got(store, 2)[1])
