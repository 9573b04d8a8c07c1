"""Aggregator: payloads of one key are collected, and delivered as one list."""

from scene import Scene

with Scene("aggregator") as scene:
    invoice = scene.service("invoice")
    collect = {"key": "${payload.customer}", "size": 3, "timeout": 60_000}
    scene.route(aggregate=collect, destinations=[scene.name("invoice")])
    for n in range(3):
        scene.send({"customer": "ann", "n": n}, wait=0)
    (items,) = scene.got(invoice)
    assert sorted(item["n"] for item in items) == [0, 1, 2]
    print("one delivery with", len(items), "payloads")
