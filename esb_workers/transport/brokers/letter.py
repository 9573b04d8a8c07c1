"""A request in a broker's terms: CloudEvents' binding for AMQP, made of what goes out over HTTP. Pure.

https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/bindings/amqp-protocol-binding.md
"""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from esb_workers.transport.adapter import PreparedRequest
from esb_workers.transport.cloudevents import decode_value

#: CloudEvents' attributes among the headers of a message; `_`, because JMS selectors cannot name `cloudEvents:id`.
PREFIX: Final = "cloudEvents_"
_BECOME_PROPERTIES: Final = frozenset({"content-type", "user-agent"})


@dataclass(frozen=True, slots=True)
class Letter:
    """A message as brokers know it. `id` is the delivery's, the same at every attempt."""

    body: bytes
    content_type: str
    headers: Mapping[str, str]
    id: str | None
    correlation_id: str | None
    type: str | None
    timestamp: int | None

    def properties(self) -> dict[str, Any]:
        """The basic properties of AMQP that are known; persistent."""
        known = {
            "message_id": self.id,
            "correlation_id": self.correlation_id,
            "type": self.type,
            "timestamp": self.timestamp,
            "app_id": "python-esb",
            "delivery_mode": 2,
        }
        return {name: value for name, value in known.items() if value is not None}


def of(request: PreparedRequest) -> Letter:
    """The letter that says what the request says: `ce-id` becomes `cloudEvents_id`, percent-encoding is undone."""
    headers, lower = {}, {}
    for name, value in (request.headers or {}).items():
        key, text = name.lower(), _plain(str(value))
        lower[key] = text
        if key.startswith("ce-"):
            headers[PREFIX + key[3:]] = text
        elif key not in _BECOME_PROPERTIES:
            headers[name] = text
    stamp = lower.get("webhook-timestamp", "")
    body = request.body or b""
    return Letter(
        body=body if isinstance(body, bytes) else str(body).encode(),
        content_type=lower.get("content-type", "application/json"),
        headers=headers,
        id=lower.get("idempotency-key"),
        correlation_id=lower.get("x-correlation-id"),
        type=lower.get("ce-type"),
        timestamp=int(stamp) if stamp.isdecimal() else None,
    )


def _plain(value: str) -> str:
    try:
        return decode_value(value)
    except ValueError:
        return value  # a header of the service's own that only looks encoded


def envelope(letter: Letter, queue: str) -> bytes:
    """The letter as kombu, and so Celery's consumers, read it off a Redis list."""
    properties = letter.properties() | {
        "delivery_tag": letter.id or "",
        "delivery_info": {"exchange": "", "routing_key": queue},
        "body_encoding": "base64",
        "priority": 0,
    }
    whole = {
        "body": b64encode(letter.body).decode(),
        "content-type": letter.content_type,
        "content-encoding": "utf-8",
        "headers": letter.headers,
        "properties": properties,
    }
    return json.dumps(whole).encode()
