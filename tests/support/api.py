"""The REST API in this process, for tests that need no server: `api.post("/services", {…})`."""

from __future__ import annotations

from typing import Any

from flask import Flask
from werkzeug.test import TestResponse

from esb_api.context import Api

OPERATOR_KEY = "operator-key-of-the-tests"


class ApiClient:
    """Calls an application with one key."""

    def __init__(self, app: Flask, key: str | None) -> None:
        self.app = app
        self._key = key
        self._client = app.test_client(use_cookies=False)

    @property
    def context(self) -> Api:
        """What the application holds."""
        api: Api = self.app.extensions["esb"]
        return api

    def with_key(self, key: str | None) -> ApiClient:
        """The same application, called with another key."""
        return ApiClient(self.app, key)

    def call(self, method: str, path: str, body: Any = None, **headers: str) -> TestResponse:
        """One request; header names are written with `_` for `-`."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        if self._key is not None:
            named.setdefault("X-API-Key", self._key)
        return self._client.open(path, method=method, headers=named, json=body)

    def get(self, path: str, **headers: str) -> TestResponse:
        return self.call("GET", path, **headers)

    def post(self, path: str, body: Any = None, **headers: str) -> TestResponse:
        return self.call("POST", path, body, **headers)

    def put(self, path: str, body: Any, **headers: str) -> TestResponse:
        return self.call("PUT", path, body, **headers)

    def patch(self, path: str, body: Any, **headers: str) -> TestResponse:
        return self.call("PATCH", path, body, **headers)

    def delete(self, path: str, **headers: str) -> TestResponse:
        return self.call("DELETE", path, **headers)
