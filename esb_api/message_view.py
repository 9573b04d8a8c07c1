"""A stored message as the API shows it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any, Final, NamedTuple

import orjson

from esb_workers.clock import to_wire
from esb_workers.store.message_log import FINAL, ActRow, MessageRow

Json = dict[str, Any]

#: What a person did, in the words of the timeline.
_ACTS: Final = {
    "replay": "message.replayed",
    "cancel": "message.cancel_requested",
    "redact": "message.redacted",
    "retry": "delivery.retried",
    "replay_delivery": "delivery.replayed",
    "skip": "delivery.skipped",
    "park": "delivery.parked",
}


class _Entry(NamedTuple):
    """A line of the timeline before it has a number. `rank` orders what happened in one millisecond."""

    at: datetime
    rank: int
    type: str
    delivery: Json | None = None
    detail: Json | None = None


def logged_message(row: MessageRow) -> Json:
    """The message with its deliveries, as plain data; payload and headers stay the text they are stored as."""
    deliveries = [_delivery(row.id, stored) for stored in row.deliveries]
    return {
        "id": row.id,
        "messageId": row.external_id or row.id,
        "correlationId": row.correlation_id,
        "status": row.status,
        "reason": row.end_reason,
        "source": row.source,
        "messageType": row.type,
        "payload": None if row.payload is None else orjson.Fragment(row.payload),
        "headers": orjson.Fragment(row.headers),
        "orderingKey": row.ordering_key,
        "priority": row.priority,
        "deliverAt": to_wire(row.deliver_at),
        "expiresAt": to_wire(row.expires_at),
        "replyTo": row.reply_to,
        "clientId": row.client_id,
        "replayOf": row.replay_of,
        "createdAt": to_wire(row.created_at),
        "updatedAt": to_wire(max(entry.at for entry in _entries(row, ()))),
        "redactedAt": to_wire(row.redacted_at),
        "deliveries": deliveries,
    }


def message(row: MessageRow, acts: Sequence[ActRow]) -> Json:
    """The same with its timeline."""
    entries = sorted(_entries(row, acts), key=lambda entry: (entry.at, entry.rank))
    return logged_message(row) | {"timeline": [_line(seq, entry) for seq, entry in enumerate(entries, 1)]}


# --- deliveries ------------------------------------------------------------------------------------------


def destination_of(cursor: Json | None, lane: str) -> str:
    """A destination as its route names it."""
    return str((cursor or {}).get("dest") or lane).removeprefix("|")  # `workflow:NAME`, if it is one


def forms(cursor: Json | None, lane: str, form: tuple[str, str] | None) -> list[Json]:
    """What transformations made of a message for a delivery: one form, or one for each destination it may go to."""
    if form is None:
        return []
    payload, headers = form
    late = (cursor or {}).get("any")
    if late is None:
        made = [(destination_of(cursor, lane), payload, headers)]
    else:
        made = [
            (str(dest), one, other)
            for (_, dest), one, other in zip(late, orjson.loads(payload), orjson.loads(headers), strict=True)
        ]
    return [
        {"destination": name, "payload": orjson.Fragment(one), "headers": orjson.Fragment(other)}
        for name, one, other in made
    ]


def _delivery(message_id: str, stored: Json) -> Json:
    return {
        "id": stored["id"],
        "messageId": message_id,
        "route": stored["route"],
        "routeId": stored["route_id"],
        "destination": destination_of(stored["cursor"], stored["lane"]),
        "status": stored["status"],
        "reason": stored["held"] or (stored["last"] or {}).get("error") or stored["class"],
        "errorClass": stored["class"],
        "serviceId": stored["service_id"],
        "attempts": [attempt(found, number) for number, found in enumerate(_tries(stored), 1)],
        "nextAttemptAt": to_wire(_moment(stored["next_at"])),
        "collectedInto": (stored["cursor"] or {}).get("into"),
        "createdAt": to_wire(_moment(stored["created_at"])),
        "finishedAt": to_wire(_moment(stored["finished_at"])),
    }


def _tries(stored: Json) -> list[Json]:
    """Every attempt, oldest first. Their fences have gaps where a claim ended without a try: they are counted anew."""
    last = stored["last"]
    if last is not None and "number" not in last:
        last = None  # it ended without a try: `last` only says why
    earlier = [found for found in stored["attempts"] if last is None or found["number"] != last.get("number")]
    return earlier if last is None else [*earlier, last_attempt(last, stored["status"])]


def last_attempt(last: Json, status: str) -> Json:
    """The last attempt of a delivery that has ended, in the form of those before it."""
    return {
        "startedAt": last.get("startedAt"),
        "finishedAt": last.get("finishedAt"),
        "outcome": "ok" if status == "delivered" else "failed",
        "detail": last,
    }


def attempt(found: Json, number: int) -> Json:
    """An attempt as the API shows it."""
    detail = found["detail"] or {}
    started, finished = _moment(found["startedAt"]), _moment(found["finishedAt"])
    duration = detail.get("durationMs")
    if duration is None and started and finished and found["outcome"] != "unknown":
        duration = max(0, round((finished - started).total_seconds() * 1000))
    return {
        "number": number,
        "startedAt": to_wire(started),
        "durationMs": duration,
        "statusCode": detail.get("statusCode"),
        "responseBody": detail.get("responseBody"),
        "error": detail.get("error") or ("the worker was lost" if found["outcome"] == "unknown" else None),
        "outcome": found["outcome"],
    }


# --- the timeline ----------------------------------------------------------------------------------------


def _line(seq: int, entry: _Entry) -> Json:
    delivery = entry.delivery
    return {
        "seq": seq,
        "at": to_wire(entry.at),
        "type": entry.type,
        "deliveryId": delivery["id"] if delivery else None,
        "destination": destination_of(delivery["cursor"], delivery["lane"]) if delivery else None,
        "detail": entry.detail,
    }


def _entries(row: MessageRow, acts: Sequence[ActRow]) -> Iterator[_Entry]:
    yield _Entry(row.created_at, 0, "message.accepted")
    if row.deliver_at and row.deliver_at > row.created_at:
        yield _Entry(row.created_at, 1, "message.scheduled", detail={"deliverAt": to_wire(row.deliver_at)})
    if row.deliveries:
        routed = min(moment for found in row.deliveries if (moment := _moment(found["created_at"])))
        yield _Entry(routed, 2, "message.routed", detail={"deliveries": len(row.deliveries)})
    if row.end_at:
        yield _Entry(row.end_at, 6, f"message.{row.status}", detail={"reason": row.end_reason})
    for found in row.deliveries:
        yield from _delivery_entries(found)
    if row.deliveries and row.status in FINAL:
        ended = max(moment for found in row.deliveries if (moment := _moment(found["finished_at"])))
        yield _Entry(ended, 6, f"message.{row.status}")
    for act in acts:
        if act.actor is None:
            yield _Entry(act.at, 1, f"message.{act.action}", detail=act.detail)
            continue
        yield _Entry(
            act.at, 7, _ACTS.get(act.action, f"message.{act.action}"), detail={"by": act.actor} | (act.detail or {})
        )


def _delivery_entries(stored: Json) -> Iterator[_Entry]:
    for number, found in enumerate(_tries(stored), 1):
        shown = attempt(found, number)
        at = _moment(found["finishedAt"]) or _moment(found["startedAt"])
        if at is not None:
            keys = ("number", "outcome", "statusCode", "durationMs", "error")
            yield _Entry(at, 3, "delivery.attempted", stored, {key: shown[key] for key in keys})
    into = (stored["cursor"] or {}).get("into")
    if (finished := _moment(stored["finished_at"])) is not None and into:
        yield _Entry(finished, 4, "delivery.collected", stored, {"messageId": into})
    elif finished is not None:
        reason = {"errorClass": stored["class"]} if stored["class"] else None
        yield _Entry(finished, 5, f"delivery.{stored['status']}", stored, reason)


def _moment(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text) if text else None
