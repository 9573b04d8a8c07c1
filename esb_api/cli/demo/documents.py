"""What the demo registers and sends: the specification's own documents, and GitHub's webhooks."""

from __future__ import annotations

import copy
import json
from importlib import resources
from typing import Any, Final

Json = dict[str, Any]

CLIENT: Final[Json] = {
    "name": "mobile-app",
    "allowedServices": ["user-service", "order-service"],
    "rateLimits": {"requestsPerMinute": 100, "requestsPerHour": 1000},
}

USER_ROUTE: Final[Json] = {
    "name": "user-events",
    "pattern": "user.*",
    "destinations": ["user-service", "analytics-service"],
    "conditions": {"header.eventType": "user.created"},
}

USER_MESSAGE: Final[Json] = {
    "source": "api-gateway",
    "messageType": "user.created",
    "payload": {"userId": "123", "email": "user@example.com"},
    "headers": {"eventType": "user.created"},
}

ONBOARDING: Final[Json] = {
    "name": "user-onboarding",
    "version": "1.0.0",
    "description": "Complete user onboarding process",
    "definition": {
        "steps": [
            {
                "id": "create-user",
                "name": "Create User Account",
                "type": "service_call",
                "config": {
                    "serviceName": "user-service",
                    "method": "createUser",
                    "payload": {"email": "${email}", "name": "${name}"},
                },
                "onSuccess": "send-welcome-email",
            },
            {
                "id": "send-welcome-email",
                "name": "Send Welcome Email",
                "type": "service_call",
                "config": {
                    "serviceName": "email-service",
                    "method": "sendWelcomeEmail",
                    "payload": {"userId": "${userId}", "email": "${email}"},
                },
            },
        ],
        "variables": {},
        "errorHandling": {
            "retryPolicy": {
                "maxRetries": 3,
                "backoffStrategy": "exponential",
                "initialDelay": 1000,
                "maxDelay": 10000,
            },
            "onError": "log-error",
        },
    },
}

NEW_USER: Final[Json] = {"email": "user@example.com", "name": "John Doe"}

#: Everything to the audit service; by content, some of it to others as well.
GITHUB_ROUTES: Final[tuple[Json, ...]] = (
    {"name": "github-audit", "pattern": "github.#", "destinations": ["audit-service"]},
    {
        "name": "github-ci",
        "pattern": "github.#",
        "destinations": ["ci-service"],
        "conditions": {"header.event": ["push", "pull_request"]},
    },
    {
        "name": "github-pager",
        "pattern": "github.#",
        "destinations": [
            {
                "service": "pager",
                "transformation": {
                    "type": "template",
                    "output": {
                        "summary": "${payload.check_run.name} failed in ${payload.repository.full_name}",
                        "link": "${payload.check_run.html_url}",
                    },
                },
            }
        ],
        "filter": "headers.event == 'check_run' && payload.check_run.conclusion == 'failure'",
    },
    {"name": "github-triage", "pattern": "github.issues.opened", "destinations": ["triage-service"]},
)

TRIAGE: Final[Json] = {
    "name": "issue-triage",
    "version": "1.0.0",
    "description": "Sort a new issue by its labels and tell those concerned",
    "definition": {
        "steps": [
            {
                "id": "sort",
                "name": "Look at the labels",
                "type": "switch",
                "config": {
                    "cases": [{"when": "issue.labels.exists(label, label.name == 'bug')", "next": "bug"}],
                    "default": "wish",
                },
            },
            {
                "id": "bug",
                "name": "It is a bug",
                "type": "set",
                "config": {"variables": {"team": "maintainers", "urgency": "today"}},
                "onSuccess": "tell",
            },
            {
                "id": "wish",
                "name": "It is a wish",
                "type": "set",
                "config": {"variables": {"team": "product", "urgency": "next week"}},
                "onSuccess": "tell",
            },
            {
                "id": "tell",
                "name": "Tell the team",
                "type": "parallel",
                "config": {
                    "branches": [
                        {
                            "name": "mail",
                            "steps": [
                                {
                                    "id": "mail-team",
                                    "name": "Mail the team",
                                    "type": "service_call",
                                    "config": {
                                        "serviceName": "email-service",
                                        "method": "notify",
                                        "payload": {
                                            "to": "${team}",
                                            "subject": "Issue ${issue.number}: ${issue.title}",
                                        },
                                        "resultPath": "mail",
                                    },
                                }
                            ],
                        },
                        {
                            "name": "audit",
                            "steps": [
                                {
                                    "id": "record",
                                    "name": "Record the decision",
                                    "type": "service_call",
                                    "config": {
                                        "serviceName": "audit-service",
                                        "method": "record",
                                        "payload": {
                                            "issue": "${issue.html_url}",
                                            "team": "${team}",
                                            "urgency": "${urgency}",
                                        },
                                        "resultPath": "record",
                                    },
                                }
                            ],
                        },
                    ],
                    "join": "all",
                    "resultPath": "told",
                },
            },
        ],
        "output": {"team": "${team}", "urgency": "${urgency}"},
    },
}


def service(name: str, endpoint: str) -> Json:
    """A registration as in the specification."""
    return {
        "name": name,
        "version": "1.0.0",
        "endpoint": endpoint,
        "healthCheck": {"url": f"{endpoint}/health", "interval": 30000, "timeout": 5000},
    }


def github_messages(correlation_id: str) -> list[Json]:
    """The twelve payloads as messages, and one failed check and one opened issue derived from them."""
    folder = resources.files(__package__).joinpath("github-webhooks")
    events: list[tuple[str, Json]] = []
    for file in sorted((f for f in folder.iterdir() if f.name.endswith(".json")), key=lambda f: f.name):
        event = file.name.removesuffix(".json").split("-", 1)[1]
        events.append((event, json.loads(file.read_text(encoding="utf-8"))))
    return [_message(event, payload, correlation_id) for event, payload in [*events, *_derived(events)]]


def _derived(events: list[tuple[str, Json]]) -> list[tuple[str, Json]]:
    check = copy.deepcopy(next(payload for event, payload in events if event == "check_run"))
    check["action"] = "completed"
    check["check_run"] |= {"status": "completed", "conclusion": "failure"}
    issue = copy.deepcopy(next(payload for event, payload in events if event == "issues"))
    issue["action"] = "opened"
    issue.pop("changes", None)
    return [("check_run", check), ("issues", issue)]


def _message(event: str, payload: Json, correlation_id: str) -> Json:
    action = payload.get("action")
    return {
        "source": "github",
        "messageType": f"github.{event}.{action}" if action else f"github.{event}",
        "payload": payload,
        "headers": {"event": event},
        "correlationId": correlation_id,
    }
