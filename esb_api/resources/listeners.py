"""Listeners: queues of other brokers that are consumed into the bus, and what they parked."""

from __future__ import annotations

import base64
from collections.abc import Callable
from functools import partial
from typing import Any

import orjson
from flask import Response

from esb_api.answers import answer, created, no_content
from esb_api.call import Call
from esb_api.etag import check_unchanged
from esb_api.operations import Resource
from esb_api.pages import cursor_id, page
from esb_api.params import PageQuery, either
from esb_api.patches import merged
from esb_api.principals import Access
from esb_api.schemas.listeners import (
    ListenerAnswer,
    ListenerBody,
    ListenerPage,
    ListenerQuery,
    ListenerStatusAnswer,
    ParkedAnswer,
    ParkedPage,
    ReplayedParkedAnswer,
)
from esb_workers.store.listeners import ListenerRow, ParkedRow, StateRow

listeners = Resource("listeners")


@listeners.operation(
    "POST", "/routing/listeners", access=Access.OPERATOR, body=ListenerBody, answers={201: ListenerAnswer},
    refusals=(409,),
)  # fmt: skip
def create_listener(call: Call, body: ListenerBody) -> Response:
    """Consume a queue of another broker.

    Each message is acknowledged when it is stored; one that can never become a message is parked, with the reason.
    """
    row = call.api.listeners.register(_columns(body), by=call.principal.actor)
    return created(_answer_of(call, row), f"/routing/listeners/{row.id}", etag=row.etag)


@listeners.operation(
    "GET", "/routing/listeners", access=Access.OPERATOR, query=ListenerQuery, answers={200: ListenerPage}
)
def list_listeners(call: Call, query: ListenerQuery) -> Response:
    """List listeners, newest first, each with how it goes."""
    rows = call.api.listeners.page(query.limit, cursor_id(query.cursor), name=query.name, enabled=either(query.enabled))
    states = call.api.listeners.states(rows)
    found = page(rows, query.limit, lambda row: _shown(row, states.get(row.id)), lambda row: row.id)
    return answer(ListenerPage(**found))


@listeners.operation("GET", "/routing/listeners/{id}", access=Access.OPERATOR, answers={200: ListenerAnswer})
def read_listener(call: Call, listener_id: str) -> Response:
    """Read one listener, with how it goes."""
    return _answered(call, call.api.listeners.get(listener_id))


@listeners.operation(
    "PUT", "/routing/listeners/{id}", access=Access.OPERATOR, body=ListenerBody, answers={200: ListenerAnswer},
    refusals=(409,), headers=("If-Match",),
)  # fmt: skip
def replace_listener(call: Call, listener_id: str, body: ListenerBody) -> Response:
    """Replace a listener. A URL as it is shown keeps its password."""
    return _change(call, listener_id, lambda _: body)


@listeners.operation(
    "PATCH", "/routing/listeners/{id}", access=Access.OPERATOR, body=ListenerBody, answers={200: ListenerAnswer},
    refusals=(409,), headers=("If-Match",),
)  # fmt: skip
def patch_listener(call: Call, listener_id: str, body: Any) -> Response:
    """Change a listener by a merge patch (RFC 7386). `{"enabled": false}` pauses it: nothing is accepted after that."""
    return _change(call, listener_id, lambda row: merged(ListenerBody, _writable(row), body))


def _change(call: Call, listener_id: str, make: Callable[[ListenerRow], ListenerBody]) -> Response:
    def edit(row: ListenerRow) -> dict[str, Any]:
        check_unchanged(call, row)
        return _columns(make(row))

    return _answered(call, call.api.listeners.change(listener_id, edit, by=call.principal.actor))


@listeners.operation(
    "DELETE", "/routing/listeners/{id}", access=Access.OPERATOR, answers={204: None}, headers=("If-Match",)
)
def delete_listener(call: Call, listener_id: str) -> Response:
    """Take a listener away, with what it parked. What is not accepted yet stays in the queue."""
    call.api.listeners.delete(listener_id, partial(check_unchanged, call), by=call.principal.actor)
    return no_content()


# --- parked messages -------------------------------------------------------------------------------------


@listeners.operation(
    "GET", "/routing/listeners/{id}/parked", access=Access.OPERATOR, query=PageQuery, answers={200: ParkedPage}
)
def list_parked_messages(call: Call, listener_id: str, query: PageQuery) -> Response:
    """List what a listener parked, newest first, each with the reason."""
    rows = call.api.listeners.parked(listener_id, query.limit, cursor_id(query.cursor))
    return answer(ParkedPage(**page(rows, query.limit, _parked, lambda row: row.id)))


@listeners.operation(
    "POST", "/routing/listeners/{id}/parked/{parkedId}/replay", access=Access.OPERATOR,
    answers={200: ReplayedParkedAnswer}, refusals=(409,),
)  # fmt: skip
def replay_parked_message(call: Call, listener_id: str, parked_id: str) -> Response:
    """Accept a parked message by today's mapping. If it still cannot be, it stays, and the refusal says why."""
    message_id = call.api.listeners.replay(listener_id, parked_id, by=call.principal.actor)
    return answer(ReplayedParkedAnswer(id=message_id))


@listeners.operation("DELETE", "/routing/listeners/{id}/parked/{parkedId}", access=Access.OPERATOR, answers={204: None})
def discard_parked_message(call: Call, listener_id: str, parked_id: str) -> Response:
    """Discard a parked message for good."""
    call.api.listeners.discard(listener_id, parked_id, by=call.principal.actor)
    return no_content()


# --- between rows and bodies -----------------------------------------------------------------------------


def _columns(body: ListenerBody) -> dict[str, Any]:
    return {
        "name": body.name,
        "url": body.url,
        "enabled": body.enabled,
        "processes": body.processes,
        "prefetch": body.prefetch,
        "mapping": body.mapping.model_dump(by_alias=True, exclude_none=True),
    }


def _writable(row: ListenerRow) -> dict[str, Any]:
    fields = ("name", "url", "enabled", "processes", "prefetch", "mapping")
    return {name: getattr(row, name) for name in fields}


def _answer_of(call: Call, row: ListenerRow) -> ListenerAnswer:
    return _shown(row, call.api.listeners.states([row]).get(row.id))


def _answered(call: Call, row: ListenerRow) -> Response:
    return answer(_answer_of(call, row), etag=row.etag)


def _shown(row: ListenerRow, state: StateRow | None) -> ListenerAnswer:
    known = state or StateRow(0, 0, 0, None, None, None, None, 0, 0)
    status = ListenerStatusAnswer(
        state=_state(row, known),
        running=known.running if row.enabled else 0,
        accepted=known.accepted,
        duplicates=known.duplicates,
        parked=known.parked,
        parked_now=known.waiting,
        last_message_at=known.last_message_at,
        connected_at=known.connected_at,
        last_error=known.error,
        last_error_at=known.error_at,
    )
    moments = {"id": row.id, "created_at": row.created_at, "updated_at": row.updated_at}
    return ListenerAnswer(**_writable(row), **moments, status=status)


def _state(row: ListenerRow, state: StateRow) -> Any:
    if not row.enabled:
        return "paused"
    since = max(filter(None, (state.connected_at, row.created_at)))
    if state.error_at is not None and state.error_at > since:
        return "failing"
    return "running" if state.running and state.connected_at is not None else "waiting"


def _parked(row: ParkedRow) -> ParkedAnswer:
    body = bytes(row.body)
    try:
        text: str | None = body.decode()
    except UnicodeDecodeError:
        text = None
    return ParkedAnswer(
        id=row.id,
        at=row.at,
        reason=row.reason,
        body=text,
        body_base64=base64.b64encode(body).decode(),
        headers=orjson.loads(row.headers),
        properties=orjson.loads(row.properties),
    )
