"""A durable workflow: calls with retries, a switch, parallel branches, and a person's answer by signal."""

from __future__ import annotations

import time
from typing import Any

from receiver import Answer, Service, connect

CREDIT = {
    "name": "example-credit",
    "version": "1.0.0",
    "definition": {
        "steps": [
            {"id": "score", "type": "service_call", "onSuccess": "decide",
             "config": {"serviceName": "flow-desk", "method": "score", "payload": {"customer": "${customer}"}}},
            {"id": "decide", "type": "switch",
             "config": {"cases": [{"when": "points >= 80", "next": "grant"}], "default": "ask"}},
            {"id": "ask", "type": "wait_for_signal", "onSuccess": "grant",
             "config": {"signal": "approval", "timeout": 60000, "resultPath": "approval"}},
            {"id": "grant", "type": "parallel", "onSuccess": "done",
             "config": {"branches": [
                 {"name": "book", "steps": [{"id": "book", "type": "service_call",
                    "config": {"serviceName": "flow-desk", "method": "book", "payload": {"points": "${points}"}}}]},
                 {"name": "tell", "steps": [{"id": "tell", "type": "service_call",
                    "config": {"serviceName": "flow-desk", "method": "tell", "payload": {"customer": "${customer}"}}}]}]}},
            {"id": "done", "type": "succeed", "config": {"output": {"granted": True, "by": "${approval.by}"}}},
        ],
        "errorHandling": {
            "retryPolicy": {"maxRetries": 3, "backoffStrategy": "exponential", "initialDelay": 100, "maxDelay": 1000},
            "onError": "log-error",
        },
    },
}  # fmt: skip

tries = {"score": 0}


def desk(path: str, body: Any) -> Answer:
    """Fails once at scoring, so that the retry can be seen."""
    if path == "/score":
        tries["score"] += 1
        return (500, {}) if tries["score"] == 1 else (200, {"points": 61})
    return 200, {"ok": True}


def wait_for(execution: str, *statuses: str) -> dict[str, Any]:
    """The run, once it is in one of these states."""
    for _ in range(200):
        run = bus.executions.get(execution)
        if run["status"] in statuses and (run["status"] != "waiting" or run["steps"][-1]["id"] == "ask"):
            return run
        time.sleep(0.1)
    raise SystemExit(f"the run is {run['status']}")


bus = connect()
with Service(desk) as service:
    registered = bus.services.create({"name": "flow-desk", "version": "1.0.0", "endpoint": service.url})
    workflow = bus.workflows.create(CREDIT)
    started = bus.execute({"workflowName": "example-credit", "initialContext": {"customer": "c-7"}})

    run = wait_for(started["executionId"], "waiting")
    print("waits for a person:", [(s["id"], s["status"], s["attempts"]) for s in run["steps"]])
    bus.executions.act(run["id"], "signal", {"name": "approval", "payload": {"by": "Grace"}})
    run = wait_for(started["executionId"], "completed", "failed")
    for step in run["steps"]:
        print(f"  {step['path']:<20} {step['type']:<16} {step['status']} after {step['attempts']}")
    print(run["status"], run["output"])

    bus.workflows.delete(workflow["id"])
    bus.services.delete(registered["id"])
assert run["output"] == {"granted": True, "by": "Grace"}
