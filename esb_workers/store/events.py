"""Operational events: what the bus tells of itself, as messages that routes may ask for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from esb_workers.store.engine import Cursor
from esb_workers.store.ids import new_id
from esb_workers.store.json import dumps


def tell(cursor: Cursor, event_type: str, payload: Mapping[str, Any]) -> None:
    """Send an event of type `esb.…`, if a route asks for such. In the transaction of what it tells of."""
    cursor.execute("select esb_event(%s, %s, %s)", (new_id(), event_type, dumps(payload)))
