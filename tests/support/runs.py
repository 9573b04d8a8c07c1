"""Workflows and runs over the API."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tests.support.api import ApiClient

Eventually = Callable[..., None]

FINAL = ("completed", "failed", "cancelled", "compensated", "timed_out")

SLEEPER = {"steps": [{"id": "w", "type": "wait", "config": {"duration": 3_600_000}}]}


def register(api: ApiClient, name: str, url: str, **more: Any) -> str:
    made = api.post("/services", {"name": name, "version": "1.0.0", "endpoint": url, **more})
    assert made.status_code == 201, made.json
    return str(made.json["id"])


def define(api: ApiClient, definition: Any, name: str = "w", version: str = "1.0.0") -> str:
    made = api.post("/orchestration/workflows", {"name": name, "version": version, "definition": definition})
    assert made.status_code == 201, made.json
    return str(made.json["id"])


def execute(api: ApiClient, workflow_id: str, context: Any = None, **more: Any) -> str:
    made = api.post("/orchestration/execute", {"workflowId": workflow_id, "initialContext": context or {}, **more})
    assert made.status_code == 202, made.json
    return str(made.json["executionId"])


def run_of(api: ApiClient, execution_id: str) -> Any:
    return api.get(f"/orchestration/executions/{execution_id}").json


def ended(api: ApiClient, execution_id: str, eventually: Eventually, seconds: float = 15) -> Any:
    eventually(lambda: run_of(api, execution_id)["status"] in FINAL, seconds)
    return run_of(api, execution_id)
