"""Which message goes where: topic patterns, conditions, CEL filters; and in which form: transformations."""

from __future__ import annotations

from receiver import Service, connect

ROUTES = [
    {   # a topic pattern (`*` is one word, `#` any number) and conditions on header and payload
        "name": "content-eu",
        "pattern": "shop.order.*",
        "conditions": {"header.region": "eu", "payload.currency": ["EUR", "SEK"]},
        "destinations": ["content-eu"],
    },
    {   # a CEL expression, and a form of its own for this destination
        "name": "content-fraud",
        "pattern": "shop.#",
        "filter": "payload.total > 1000 && !(payload.customer in ['c-1', 'c-2'])",
        "destinations": ["content-fraud"],
        "transformation": [
            {"type": "pick", "fields": ["customer", "total"]},
            {"type": "set", "fields": {"summary": "${payload.customer} spent ${payload.total} ${message.payload.currency}"}},
        ],
    },
]  # fmt: skip
ORDER = {"customer": "c-7", "total": 1500, "currency": "EUR", "card": "4111 1111 1111 1111"}

bus = connect()
with Service() as eu, Service() as fraud:
    made = [
        bus.services.create({"name": n, "version": "1.0.0", "endpoint": s.url})
        for n, s in (("content-eu", eu), ("content-fraud", fraud))
    ]
    routes = [bus.routes.create(route) for route in ROUTES]

    # A dry run says which clause would say no, and sends nothing.
    dry = bus.call(
        "POST",
        "/routing/test",
        {"message": {"messageType": "shop.order.placed", "headers": {"region": "us"}, "payload": ORDER}},
    )
    for verdict in dry["items"]:
        if verdict["route"].startswith("content-"):
            print(f"{verdict['route']}: {'yes' if verdict['matched'] else 'no: ' + '; '.join(verdict['reasons'])}")

    message = bus.send(
        {"source": "shop", "messageType": "shop.order.placed", "headers": {"region": "eu"}, "payload": ORDER}, wait=10
    )
    print("eu got:   ", eu.calls[0][2])
    print("fraud got:", fraud.calls[0][2])

    for route in routes:
        bus.routes.delete(route["id"])
    for service in made:
        bus.services.delete(service["id"])
assert message["status"] == "delivered"
assert fraud.calls[0][2] == {"customer": "c-7", "total": 1500, "summary": "c-7 spent 1500 EUR"}
