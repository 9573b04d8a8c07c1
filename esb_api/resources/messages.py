"""Messages as they are read back, and what people do to them."""

from __future__ import annotations

from flask import Response

from esb_api import message_view
from esb_api.answers import answer, no_content
from esb_api.call import Call
from esb_api.operations import Resource
from esb_api.pages import cursor_id, encode_cursor
from esb_api.principals import Access
from esb_api.schemas.messages import DeliveryAnswer, LogPage, LogQuery, MessageAnswer, ReplayedAnswer
from esb_workers.errors import NotFound
from esb_workers.store import message_log
from esb_workers.store.message_log import LogFilter

messages = Resource("messages")


@messages.operation("GET", "/routing/logs", access=Access.CLIENT, query=LogQuery, answers={200: LogPage})
def list_messages(call: Call, query: LogQuery) -> Response:
    """List messages with their deliveries, newest first.

    A client sees its own. A page of large messages may be shorter than `limit`; `nextCursor` leads on.
    """
    wanted = LogFilter(
        owner=call.principal.client_id, ids=query.message_id, correlation_ids=query.correlation_id,
        types=query.message_type, sources=query.source, statuses=query.status, destinations=query.destination,
        clients=query.client_id, since=query.from_, until=query.to,
    )  # fmt: skip
    with call.api.database.cursor() as cursor:
        rows, more = message_log.page(cursor, query.limit, cursor_id(query.cursor), wanted)
    items = [message_view.logged_message(row) for row in rows]
    return answer({"items": items, "nextCursor": encode_cursor(rows[-1].id) if more else None})


@messages.operation("GET", "/routing/messages/{id}", access=Access.CLIENT, answers={200: MessageAnswer}, texts=("id",))
def read_message(call: Call, name: str) -> Response:
    """Read one message, by the bus's id or by its sender's own.

    A client sees its own only; for the operator, of several that senders named alike, its own comes first, then the
    newest.
    """
    return _shown(call, _find(call, name))


@messages.operation(
    "POST", "/routing/messages/{id}/replay", access=Access.OPERATOR, answers={202: ReplayedAnswer}, refusals=(409,),
    texts=("id",),
)  # fmt: skip
def replay_message(call: Call, name: str) -> Response:
    """Send a message's content again, through today's routes, as a new message with `replayOf`."""
    found = _find(call, name)
    new, new_id = call.api.bus.replay(found, by=call.principal.actor, traceparent=call.traceparent)
    call.correlation_id = new.correlation_id
    body = ReplayedAnswer(id=new_id, message_id=new_id, correlation_id=new.correlation_id, replay_of=found)
    return answer(body, 202, Location=f"/routing/messages/{new_id}")


@messages.operation(
    "POST", "/routing/messages/{id}/cancel", access=Access.CLIENT, answers={200: MessageAnswer}, refusals=(409,),
    texts=("id",),
)  # fmt: skip
def cancel_message(call: Call, name: str) -> Response:
    """Stop what of a message is not delivered yet; attempts in flight finish, and are not repeated."""
    found = _find(call, name)
    call.api.bus.cancel(found, by=call.principal.actor)
    return _shown(call, found)


@messages.operation(
    "DELETE", "/routing/messages/{id}/payload", access=Access.OPERATOR, answers={204: None}, refusals=(409,),
    texts=("id",),
)  # fmt: skip
def redact_message(call: Call, name: str) -> Response:
    """Take a message's content away for good: its payload, in every form, and what destinations answered to it."""
    call.api.bus.redact(_find(call, name), by=call.principal.actor)
    return no_content()


@messages.operation(
    "POST", "/routing/deliveries/{id}/retry", access=Access.OPERATOR, answers={200: DeliveryAnswer}, refusals=(409,)
)
def retry_delivery(call: Call, delivery_id: str) -> Response:
    """Take a delivery up again, now and with a fresh budget.

    Where all circuits of its destination are open, it is the probe.
    """
    message_id = call.api.bus.retry(delivery_id, by=call.principal.actor)
    return shown_delivery(call, message_id, delivery_id)


def shown_delivery(call: Call, message_id: str, delivery_id: str) -> Response:
    """The answer that shows a delivery of a message as it now is."""
    with call.api.database.cursor() as cursor:
        row = message_log.get(cursor, message_id)
    found = message_view.logged_message(row)["deliveries"] if row else []
    return answer(next(shown for shown in found if shown["id"] == delivery_id.lower()))


def _find(call: Call, name: str) -> str:
    with call.api.database.cursor() as cursor:
        found = message_log.find(cursor, name, call.principal.client_id)
    if found is None:
        raise NotFound
    return found


def _shown(call: Call, message_id: str) -> Response:
    with call.api.database.cursor() as cursor:
        row = message_log.get(cursor, message_id)
        acts = message_log.acts(cursor, message_id)
    if row is None:
        raise NotFound
    return answer(message_view.message(row, acts))
