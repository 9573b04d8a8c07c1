"""Ordering keys that do not get through, and what people do about the delivery at their head."""

from __future__ import annotations

from typing import Final

from flask import Response

from esb_api import message_view
from esb_api.answers import answer
from esb_api.call import Call
from esb_api.operations import Resource
from esb_api.pages import cursor_id, page
from esb_api.principals import Access
from esb_api.resources.messages import shown_delivery
from esb_api.schemas.blocked_keys import BlockedKeyAnswer, BlockedKeyPage, BlockedKeyQuery, HeadAnswer, KeyState
from esb_api.schemas.messages import DeliveryAnswer
from esb_workers.store import blocked_keys as stored
from esb_workers.store.blocked_keys import BlockedKey

blocked_keys = Resource("blocked-keys")

_STATES: Final[dict[str, KeyState]] = {"b": "blocked", "f": "in_flight"}


@blocked_keys.operation(
    "GET", "/routing/blocked-keys", access=Access.OPERATOR, query=BlockedKeyQuery, answers={200: BlockedKeyPage}
)
def list_blocked_keys(call: Call, query: BlockedKeyQuery) -> Response:
    """List ordering keys whose head has failed and is not delivered yet, with what waits behind it."""
    states = set(query.state or ())
    with call.api.database.cursor() as cursor:
        rows = stored.page(
            cursor, query.limit, cursor_id(query.cursor), keys=query.key, destinations=query.destination,
            blocked="blocked" in states if len(states) == 1 else None,
        )  # fmt: skip
    return answer(BlockedKeyPage(**page(rows, query.limit, _shown, lambda row: row.delivery_id)))


@blocked_keys.operation(
    "POST", "/routing/blocked-keys/{id}/retry", access=Access.OPERATOR, answers={200: DeliveryAnswer}, refusals=(409,)
)
def retry_head(call: Call, delivery_id: str) -> Response:
    """Try the head of a key again, now and with a fresh budget; `id` is the delivery's."""
    message_id = call.api.bus.retry_head(delivery_id, by=call.principal.actor)
    return shown_delivery(call, message_id, delivery_id)


@blocked_keys.operation(
    "POST", "/routing/blocked-keys/{id}/skip", access=Access.OPERATOR, answers={200: DeliveryAnswer}, refusals=(409,)
)
def skip_head(call: Call, delivery_id: str) -> Response:
    """Give up the head of a key: it ends as cancelled, and those behind it go on.

    An attempt under way ends first: if it succeeds, the delivery is delivered.
    """
    message_id = call.api.bus.end_head(delivery_id, "skip", by=call.principal.actor)
    return shown_delivery(call, message_id, delivery_id)


@blocked_keys.operation(
    "POST", "/routing/blocked-keys/{id}/park", access=Access.OPERATOR, answers={200: DeliveryAnswer}, refusals=(409,)
)
def park_head(call: Call, delivery_id: str) -> Response:
    """Put the head of a key aside: it becomes a dead letter, to be replayed later, and those behind it go on.

    An attempt under way ends first: if it succeeds, the delivery is delivered.
    """
    message_id = call.api.bus.end_head(delivery_id, "park", by=call.principal.actor)
    return shown_delivery(call, message_id, delivery_id)


def _shown(row: BlockedKey) -> BlockedKeyAnswer:
    blocked = (row.cursor or {}).get("blocked")
    found = (row.last or {}).get("detail") or {}  # nothing where the worker of the last attempt was lost
    head = HeadAnswer(
        id=row.delivery_id, message_id=row.message_id, attempts=row.attempts, next_attempt_at=row.next_at,
        last_attempt=message_view.attempt(row.last, row.attempts) if row.last else None,
    )  # fmt: skip
    return BlockedKeyAnswer(
        id=row.delivery_id, key=row.key, destination=message_view.destination_of(row.cursor, row.lane), route=row.route,
        route_id=row.route_id, state=_STATES.get(row.state, "retrying"), since=row.since, head=head,
        reason=blocked or found.get("errorClass"), waiting=row.waiting,
        error=((row.cursor or {}).get("failed") or found).get("error"),
    )  # fmt: skip
