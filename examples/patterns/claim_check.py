"""Claim check: of a large payload a receipt goes out, by which the receiver fetches it."""

from urllib.parse import urlsplit

from scene import Scene

with Scene("claim-check") as scene:
    desk = scene.service("desk")
    scene.route(transformation={"type": "claim_check", "thresholdBytes": 1000}, destinations=[scene.name("desk")])
    scene.send({"text": "x" * 5000})
    (receipt,) = scene.got(desk)
    where = urlsplit(receipt["dataref"])
    payload = scene.bus.call("GET", f"{where.path}?{where.query}")
    assert len(payload["text"]) == 5000
    print(receipt["bytes"], "bytes were fetched, not sent")
