"""Messages sent over the API, and what became of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tests.support.api import ApiClient
from tests.support.receiver import Receiver

Eventually = Callable[..., None]

Json = dict[str, Any]

MESSAGE: Json = {"source": "shop", "messageType": "order.placed", "payload": {"n": 1}, "headers": {"eventType": "x"}}

QUICK = {"maxRetries": 2, "backoffStrategy": "fixed", "initialDelay": 50, "jitter": 0}

SLOW = {"maxRetries": 5, "backoffStrategy": "fixed", "initialDelay": 60_000, "maxDelay": 60_000, "jitter": 0}


def serve(api: ApiClient, receiver: Receiver, name: str = "crm", **fields: Any) -> Json:
    made = api.post("/services", {"name": name, "version": "1.0.0", "endpoint": receiver.url} | fields)
    assert made.status_code == 201, made.json
    return made.json


def route(api: ApiClient, *destinations: Any, **fields: Any) -> Json:
    body = {"name": "orders", "pattern": "order.#", "destinations": list(destinations) or ["crm"], "retryPolicy": QUICK}
    made = api.post("/routing/routes", body | fields)
    assert made.status_code == 201, made.json
    return made.json


def send(api: ApiClient, **fields: Any) -> Json:
    response = api.post("/routing/send", MESSAGE | fields)
    assert response.status_code == 202, response.json
    return response.json


def read(api: ApiClient, message: Json) -> Json:
    response = api.get(f"/routing/messages/{message['id']}")
    assert response.status_code == 200, response.json
    return response.json


def settled(api: ApiClient, message: Json, eventually: Eventually, status: str) -> Json:
    eventually(lambda: read(api, message)["status"] == status)
    return read(api, message)


def names(shown: Json) -> list[str]:
    return [line["type"] for line in shown["timeline"]]
