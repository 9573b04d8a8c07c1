"""A service, a route, a message, and what became of it."""

from __future__ import annotations

from receiver import Service, connect

bus = connect()
with Service() as greeter:
    service = bus.services.create({"name": "hello-greeter", "version": "1.0.0", "endpoint": greeter.url})
    route = bus.routes.create({"name": "hello", "pattern": "hello.#", "destinations": ["hello-greeter"]})

    # `wait` asks for the final state; without it the answer is an immediate 202 and the message id.
    message = bus.send({"source": "example", "messageType": "hello.world", "payload": {"who": "world"}}, wait=10)

    print("status:  ", message["status"])
    print("attempts:", message["deliveries"][0]["attempts"])
    path, headers, body = greeter.calls[0]
    print("received:", body, "as", headers["ce-type"], "from", headers["ce-source"])

    bus.routes.delete(route["id"])
    bus.services.delete(service["id"])
assert message["status"] == "delivered"
