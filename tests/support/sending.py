"""Messages as clients send them."""

from __future__ import annotations

from typing import Any

from werkzeug.test import TestResponse

from tests.support.api import ApiClient

MESSAGE: dict[str, Any] = {
    "source": "api-gateway",
    "messageType": "user.created",
    "payload": {"userId": "123", "email": "user@example.com"},
    "headers": {"eventType": "user.created"},
}


def client_of(api: ApiClient, **fields: Any) -> tuple[dict[str, Any], ApiClient]:
    made = api.post("/clients", {"name": "app", "allowedServices": ["*"]} | fields)
    assert made.status_code == 201, made.json
    return made.json, api.with_key(made.json["apiKey"])


def send(api: ApiClient, **fields: Any) -> dict[str, Any]:
    response = api.post("/routing/send", MESSAGE | fields)
    assert response.status_code == 202, response.json
    return response.json


def logged(api: ApiClient) -> list[dict[str, Any]]:
    return api.get("/routing/logs").json["items"]


def events(api: ApiClient, body: bytes, **headers: str) -> TestResponse:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return api.app.test_client().post("/routing/events", data=body, headers={"X-API-Key": api._key or "", **named})
