"""Resequencer: what came out of order goes out in order."""

from scene import Scene

with Scene("resequencer") as scene:
    ledger = scene.service("ledger")
    in_order = {"key": "${payload.account}", "sequence": "${payload.n}", "first": 1, "timeout": 60_000}
    scene.route(resequence=in_order, destinations=[scene.name("ledger")])
    for n in (3, 1, 2):
        scene.send({"account": "a", "n": n}, wait=0)
    assert [body["n"] for body in scene.got(ledger, 3)] == [1, 2, 3]
    print("sent as 3, 1, 2; delivered as 1, 2, 3")
