"""Idempotent receiver: a message under one id is taken once, and every try bears one key."""

import uuid

from scene import Scene

ID = f"order-{uuid.uuid4()}"

with Scene("idempotent-receiver") as scene:
    answers = iter([(503, {}), (200, {})])
    desk = scene.service("desk", lambda path, body: next(answers))
    policy = {"maxRetries": 2, "backoffStrategy": "fixed", "initialDelay": 50}
    scene.route(destinations=[scene.name("desk")], retryPolicy=policy)
    first = scene.send({"n": 1}, messageId=ID, wait=0)
    again = scene.send({"n": 1}, messageId=ID, wait=0)
    assert first["id"] == again["id"]
    scene.got(desk, 2)
    keys = {headers["Idempotency-Key"] for _, headers, _ in desk.calls}
    assert len(desk.calls) == 2 and len(keys) == 1
    print("sent twice, taken once; tried twice, under one key")
