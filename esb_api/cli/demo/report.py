"""The tables at the end of the demo."""

from __future__ import annotations

from collections.abc import Iterator

from esb_api.cli.demo.story import Json, Outcome
from esb_api.cli.output import table


def report(outcome: Outcome) -> str:
    """What happened: services, messages with their deliveries, workflow steps."""
    services = [{**s, "calls": outcome.calls.get(s["name"], 0)} for s in reversed(outcome.services)]
    parts = [
        ("SERVICES", table(services, ("name", "version", "status", "health", "calls", "endpoint"))),
        (
            "MESSAGES",
            table(list(_deliveries(outcome.messages)), ("message", "status", "route", "to", "delivery", "tries")),
        ),
        (
            "WORKFLOWS",
            table(list(_steps(outcome.executions)), ("workflow", "status", "step", "type", "result", "tries")),
        ),
    ]
    return "\n\n".join(f"{title}\n{text}" for title, text in parts)


def _deliveries(messages: list[Json]) -> Iterator[Json]:
    for message in messages:
        head = {"message": message["messageType"], "status": message["status"]}
        for delivery in message["deliveries"]:
            yield {
                **head,
                "route": delivery.get("route"),
                "to": delivery["destination"],
                "delivery": delivery["status"],
                "tries": len(delivery.get("attempts") or []),
            }
            head = {"message": "", "status": ""}
        if not message["deliveries"]:
            yield head


def _steps(executions: list[Json]) -> Iterator[Json]:
    for run in executions:
        head = {"workflow": run.get("workflowName") or run["id"], "status": run["status"]}
        for step in run["steps"]:
            shown = {"step": step.get("path") or step["id"], "type": step["type"], "result": step["status"]}
            yield {**head, **shown, "tries": step["attempts"]}
            head = {"workflow": "", "status": ""}
