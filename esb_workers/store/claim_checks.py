"""Payloads that are fetched by a receipt."""

from __future__ import annotations

from typing import NamedTuple

from esb_workers.store.engine import Cursor


class CheckedPayload(NamedTuple):
    """What a receipt stands for: JSON text, None once redacted, and the token that the receipt must show."""

    token: str
    payload: str | None


def get(cursor: Cursor, delivery_id: str) -> CheckedPayload | None:
    """The payload of a delivery that was sent a receipt, open or ended; None if there is none."""
    cursor.execute(
        "select d.cursor->'check'->>'token', case when m.payload is not null then f.payload end"
        "  from (select j.message_id, j.cursor from job j where j.id = %(id)s and j.pool = 2"
        "        union all select v.message_id, v.cursor from delivery v where v.id = %(id)s) d"
        "  join message m on m.id = d.message_id join form f on f.delivery_id = %(id)s where d.cursor ? 'check'",
        {"id": delivery_id},
    )
    row = cursor.fetchone()
    return CheckedPayload(*row) if row else None
