"""Stored messages as expressions and conditions see them."""

from __future__ import annotations

from typing import Any

import orjson

from esb_workers.clock import to_wire
from esb_workers.store.messages import StoredMessage

Json = dict[str, Any]


def as_json(stored: StoredMessage) -> Json:
    """A message as expressions and conditions see it: as the API shows it."""
    return {
        "id": stored.id,
        "messageId": stored.external_id or stored.id,
        "source": stored.source,
        "messageType": stored.type,
        "payload": orjson.loads(stored.payload or "null"),
        "headers": orjson.loads(stored.headers),
        "correlationId": stored.correlation_id,
        "orderingKey": stored.ordering_key,
        "priority": stored.priority,
        "createdAt": to_wire(stored.created_at),
    }
