"""Composed message processor: split, work on each part, and put the parts together again."""

from scene import Scene

with Scene("composed-message-processor") as scene:
    desk = scene.service("desk")
    scene.route(
        split={"items": "${payload.lines}"},
        transformation={"type": "template", "output": {"sku": "${item.sku}", "sum": "${item.n * item.price}"}},
        aggregate={"key": "${message.id}", "when": "index == size(message.payload.lines) - 1"},
        destinations=[scene.name("desk")],
    )
    scene.send({"lines": [{"sku": "apple", "n": 2, "price": 3}, {"sku": "pear", "n": 1, "price": 4}]})
    assert scene.got(desk) == [[{"sku": "apple", "sum": 6}, {"sku": "pear", "sum": 4}]]
    print("put together:", scene.got(desk)[0])
