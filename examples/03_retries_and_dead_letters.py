"""A service that fails: retries, a dead letter, and its replay once the service is well again."""

from __future__ import annotations

import time

from receiver import Service, connect

bus = connect()
with Service(lambda path, body: (503, {"sorry": "down"})) as billing:
    service = bus.services.create({"name": "dead-billing", "version": "1.0.0", "endpoint": billing.url})
    route = bus.routes.create(
        {
            "name": "dead-invoices",
            "pattern": "dead.invoice",
            "destinations": ["dead-billing"],
            "retryPolicy": {"maxRetries": 2, "backoffStrategy": "exponential", "initialDelay": 200, "jitter": 0},
        }
    )

    message = bus.send({"source": "example", "messageType": "dead.invoice", "payload": {"number": 1}}, wait=10)
    for attempt in message["deliveries"][0]["attempts"]:
        print(f"attempt {attempt['number']}: {attempt['statusCode']}, {attempt['responseBody']}")
    print("message:", message["status"], "- delivery:", message["deliveries"][0]["status"])

    billing.answer = lambda path, body: (200, {})
    replay = bus.call("POST", "/routing/dead-letters/replay", {"filter": {"destination": "dead-billing"}})
    print(f"replaying {replay['matched']} dead letter(s)")
    for _ in range(100):
        now = bus.messages.get(message["messageId"])
        if now["status"] == "delivered":
            break
        time.sleep(0.1)
    print("message:", now["status"])

    bus.routes.delete(route["id"])
    bus.services.delete(service["id"])
assert now["status"] == "delivered"
# Every attempt bore the same id, so a receiver that remembers ids takes the message once.
assert len({headers["webhook-id"] for _, headers, _ in billing.calls}) == 1
