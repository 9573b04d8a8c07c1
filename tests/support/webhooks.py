"""Requests as senders of webhooks make them."""

from __future__ import annotations

import hmac
from typing import Any

from werkzeug.test import TestResponse

from tests.support.api import ApiClient

SECRET = "a-secret-of-some-length"

TOKEN = {"type": "token", "header": "X-Token", "secrets": [SECRET]}


def create(api: ApiClient, **fields: Any) -> dict[str, Any]:
    response = api.post("/routing/ingress", {"name": "hooks"} | fields)
    assert response.status_code == 201, response.json
    return response.json


def post(
    api: ApiClient,
    body: bytes | str,
    headers: dict[str, str],
    path: str = "/ingress/hooks",
    kind: str = "application/json",
) -> TestResponse:
    """One request as a stranger makes it: without a key."""
    return api.app.test_client(use_cookies=False).post(path, data=body, headers=headers, content_type=kind)


def github(body: bytes, event: str, delivery: str = "d-1", secret: str = SECRET) -> dict[str, str]:
    signature = "sha256=" + hmac.new(secret.encode(), body, "sha256").hexdigest()
    return {"X-Hub-Signature-256": signature, "X-GitHub-Event": event, "X-GitHub-Delivery": delivery}


def message(api: ApiClient, accepted: TestResponse) -> dict[str, Any]:
    assert accepted.status_code == 202, accepted.json
    return api.get(f"/routing/messages/{accepted.json['id']}").json


def faults(response: TestResponse) -> dict[str, str]:
    assert response.status_code == 422, response.json
    return {fault["path"]: fault["message"] for fault in response.json["errors"]}
