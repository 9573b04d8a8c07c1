"""Control of runs: skip what failed, run again from a step with other input, cancel and undo. And a calendar."""

from __future__ import annotations

import time
from typing import Any

from receiver import Answer, Service, connect

STOCK = {"serviceName": "control-shop"}
ORDER = {
    "name": "example-order",
    "version": "1.0.0",
    "definition": {
        "flow": "sequential",
        "steps": [
            {"id": "reserve", "type": "service_call", "config": {**STOCK, "method": "reserve", "payload": {"sku": "${sku}"}},
             "compensate": {"type": "service_call", "config": {**STOCK, "method": "release", "payload": {"sku": "${sku}"}}}},
            {"id": "print", "type": "service_call", "config": {**STOCK, "method": "print"}},
            {"id": "confirm", "type": "wait_for_signal", "config": {"signal": "confirmed"}},
        ],
        "concurrency": {"key": "customer", "limit": 2},
    },
}  # fmt: skip


def shop(path: str, body: Any) -> Answer:
    """Has no paper."""
    return (400, {}) if path == "/print" else (200, {})


def until(execution: str, status: str) -> dict[str, Any]:
    """The run, once it is in this state."""
    for _ in range(200):
        run = bus.executions.get(execution)
        if run["status"] == status:
            return run
        time.sleep(0.1)
    raise SystemExit(f"the run is {run['status']}")


bus = connect()
with Service(shop) as service:
    registered = bus.services.create({"name": "control-shop", "version": "1.0.0", "endpoint": service.url})
    workflow = bus.workflows.create(ORDER)
    start = {"workflowId": workflow["id"], "initialContext": {"sku": "x1", "customer": "c7"}, "businessKey": "order-1"}
    run = bus.execute(start)["executionId"]
    again = bus.execute({**start, "businessKeyReuse": "return_existing"})
    print("the same run for the same order:", again["executionId"] == run)

    print("failed at", until(run, "failed")["error"]["step"])
    bus.executions.act(run, "skip", {"step": "print"})
    print("skipped it, and is", until(run, "waiting")["status"])
    bus.executions.act(run, "cancel", {"compensate": True, "reason": "ordered twice"})
    print("cancelled, and", until(run, "compensated")["status"])
    bus.executions.act(run, "rerun", {"fromStep": "confirm", "context": {"sku": "x2"}})
    print("runs again, with", until(run, "waiting")["context"]["sku"])
    bus.executions.act(run, "cancel")
    print("calls:", [path for path, _, _ in service.calls])

    nightly = {"name": "example-nightly", "workflowName": "example-order", "cron": "30 2 * * *"}
    schedule = bus.call("POST", "/orchestration/schedules", {**nightly, "timezone": "Europe/Berlin"})
    print("due next:", schedule["nextRuns"][0])

    bus.call("DELETE", f"/orchestration/schedules/{schedule['id']}")
    bus.workflows.delete(workflow["id"])
    bus.services.delete(registered["id"])
assert [path for path, _, _ in service.calls] == ["/reserve", "/print", "/release"]
