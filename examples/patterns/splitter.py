"""Splitter: one order becomes a delivery for each of its lines."""

from scene import Scene

with Scene("splitter") as scene:
    stock = scene.service("stock")
    line = {"type": "template", "output": {"order": "${payload.id}", "line": "${index}", "sku": "${item.sku}"}}
    scene.route(split={"items": "${payload.lines}"}, transformation=line, destinations=[scene.name("stock")])
    scene.send({"id": "o-1", "lines": [{"sku": "apple"}, {"sku": "pear"}]})
    got = sorted(scene.got(stock, 2), key=lambda body: body["line"])
    assert got[1] == {"order": "o-1", "line": 1, "sku": "pear"}
    print("two lines:", got)
