"""Webhooks from another system: GitHub's, signed as GitHub signs them, become messages and are routed.

A sender needs no API key, only the secret; a forged request is refused, and the bus keeps why.
"""

from __future__ import annotations

import hashlib
import hmac
import time
from pathlib import Path

import requests
from receiver import Service, connect

bus = connect()
issue = (Path(__file__).parent / "github-webhooks/04-issues.json").read_bytes()


def deliver(secret: str, delivery: str) -> requests.Response:
    """What GitHub does when something happens in a repository."""
    signature = "sha256=" + hmac.new(secret.encode(), issue, hashlib.sha256).hexdigest()
    headers = {"X-GitHub-Event": "issues", "X-GitHub-Delivery": delivery, "X-Hub-Signature-256": signature}
    return requests.post(
        bus.url + ingress["path"], issue, headers={"Content-Type": "application/json", **headers}, timeout=10
    )


with Service() as triage:
    service = bus.services.create({"name": "issue-desk", "version": "1.0.0", "endpoint": triage.url})
    route = bus.routes.create({"name": "issues", "pattern": "github.issues.*", "destinations": ["issue-desk"]})
    ingress = bus.ingress.create({"name": "example-github", "verification": {"type": "github"}})
    secret: str = ingress["secret"]  # shown this once

    accepted = deliver(secret, "d-1").json()
    again = deliver(secret, "d-1").json()
    print("accepted", accepted["messageId"], "- sent again:", again["id"] == accepted["id"])
    deadline = time.monotonic() + 10
    while not triage.calls and time.monotonic() < deadline:
        time.sleep(0.05)
    print("the desk got", triage.calls[0][2]["action"], "of", triage.calls[0][2]["repository"]["full_name"])

    forged = deliver("not-the-secret", "d-2")
    print("forged:", forged.status_code, forged.json()["code"])
    refusals = bus.call("GET", f"{bus.ingress.one(ingress['id'])}/refusals")["items"]
    print("kept:", refusals[0]["reason"])

    bus.ingress.delete(ingress["id"])
    bus.routes.delete(route["id"])
    bus.services.delete(service["id"])
assert (accepted["id"], forged.status_code) == (again["id"], 401)
