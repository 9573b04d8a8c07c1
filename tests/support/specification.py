"""What the specification gives as its examples, word by word."""

from __future__ import annotations

from typing import Any

USER_ONBOARDING: dict[str, Any] = {
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
            "retryPolicy": {"maxRetries": 3, "backoffStrategy": "exponential", "initialDelay": 1000, "maxDelay": 10000},
            "onError": "log-error",
        },
    },
}
