"""The client registry."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from flask import Response

from esb_api.answers import answer, created, no_content, secret
from esb_api.call import Call
from esb_api.etag import check_unchanged
from esb_api.operations import Resource
from esb_api.pages import cursor_id, key_page, page
from esb_api.params import PageQuery
from esb_api.patches import merged
from esb_api.principals import Access
from esb_api.schemas.clients import (
    ClientAnswer,
    ClientBody,
    ClientPage,
    ClientQuery,
    CreatedClientAnswer,
    CreatedKeyAnswer,
    HourAnswer,
    KeyAnswer,
    KeysAnswer,
    RotationBody,
    UsageAnswer,
    WindowAnswer,
)
from esb_workers.errors import NotFound
from esb_workers.registry.clients import client_of
from esb_workers.registry.quotas import WINDOWS
from esb_workers.store.clients import ClientRow, KeyRow

clients = Resource("clients")

_WINDOW_NAMES = {seconds: name for name, seconds in WINDOWS.items()}


@clients.operation(
    "POST", "/clients", access=Access.OPERATOR, body=ClientBody, answers={201: CreatedClientAnswer}, refusals=(409,)
)
def create_client(call: Call, body: ClientBody) -> Response:
    """Register a client.

    Its key is shown in this answer only; the bus keeps a hash.
    """
    row, key, text = call.api.clients.register(_columns(body), by=call.principal.actor)
    model = CreatedClientAnswer(**answer_of(row).model_dump(), api_key=text, key_id=key.id)
    return secret(created(model, f"/clients/{row.id}", etag=row.etag))


@clients.operation("GET", "/clients", access=Access.OPERATOR, query=ClientQuery, answers={200: ClientPage})
def list_clients(call: Call, query: ClientQuery) -> Response:
    """List clients, newest first."""
    rows = call.api.clients.page(query.limit, cursor_id(query.cursor), name=query.name, status=query.status)
    return answer(ClientPage(**page(rows, query.limit, answer_of, lambda row: row.id)))


@clients.operation("GET", "/clients/{id}", access=Access.OPERATOR, answers={200: ClientAnswer})
def read_client(call: Call, client_id: str) -> Response:
    """Read one client."""
    return _answered(call.api.clients.get(client_id))


@clients.operation(
    "PUT", "/clients/{id}", access=Access.OPERATOR, body=ClientBody, answers={200: ClientAnswer}, refusals=(409,),
    headers=("If-Match",),
)  # fmt: skip
def replace_client(call: Call, client_id: str, body: ClientBody) -> Response:
    """Replace a client's registration; its keys stay."""
    return _change(call, client_id, lambda _: body)


@clients.operation(
    "PATCH", "/clients/{id}", access=Access.OPERATOR, body=ClientBody, answers={200: ClientAnswer}, refusals=(409,),
    headers=("If-Match",),
)  # fmt: skip
def patch_client(call: Call, client_id: str, body: Any) -> Response:
    """Change a client by a merge patch (RFC 7386). It holds for the next request already."""
    return _change(call, client_id, lambda row: merged(ClientBody, _writable(row), body))


def _change(call: Call, client_id: str, make: Callable[[ClientRow], ClientBody]) -> Response:
    def edit(row: ClientRow) -> dict[str, Any]:
        check_unchanged(call, row)
        return _columns(make(row))

    return _answered(call.api.clients.change(client_id, edit, by=call.principal.actor))


@clients.operation("DELETE", "/clients/{id}", access=Access.OPERATOR, answers={204: None}, headers=("If-Match",))
def delete_client(call: Call, client_id: str) -> Response:
    """Revoke a client and its keys, at once. Its messages stay."""
    call.api.clients.revoke(client_id, partial(check_unchanged, call), by=call.principal.actor)
    return no_content()


# --- keys ------------------------------------------------------------------------------------------------


@clients.operation(
    "POST", "/clients/{id}/keys", access=Access.OPERATOR, body=RotationBody, body_optional=True,
    answers={201: CreatedKeyAnswer},
)  # fmt: skip
def create_client_key(call: Call, client_id: str, body: RotationBody) -> Response:
    """Make a further key, shown in this answer only; `expiresPreviousIn` ends the present ones."""
    _, key, text = call.api.clients.rotate(client_id, body.expires_previous_in, by=call.principal.actor)
    model = CreatedKeyAnswer(**_key(key).model_dump(), api_key=text)
    return secret(created(model, f"/clients/{client_id}/keys"))


@clients.operation("GET", "/clients/{id}/keys", access=Access.OPERATOR, query=PageQuery, answers={200: KeysAnswer})
def list_client_keys(call: Call, client_id: str, query: PageQuery) -> Response:
    """List a client's keys, newest first."""
    rows = call.api.clients.keys(client_id)
    return answer(KeysAnswer(**key_page(rows, query.limit, query.cursor, _key)))


@clients.operation(
    "DELETE", "/clients/{id}/keys/{keyId}", access=Access.OPERATOR, answers={204: None}, texts=("keyId",)
)
def delete_client_key(call: Call, client_id: str, key_id: str) -> Response:
    """Revoke one of a client's keys, at once."""
    call.api.clients.revoke_key(client_id, key_id, by=call.principal.actor)
    return no_content()


def _key(row: KeyRow) -> KeyAnswer:
    return KeyAnswer(id=row.id, created_at=row.created_at, expires_at=row.expires_at)


# --- usage -----------------------------------------------------------------------------------------------


@clients.operation("GET", "/clients/self/usage", access=Access.CLIENT, answers={200: UsageAnswer}, refusals=(404,))
def read_own_usage(call: Call) -> Response:
    """Read the usage of the client that asks."""
    if call.principal.client_id is None:
        raise NotFound("The operator is no client.")
    return _usage(call, call.principal.client_id)


@clients.operation("GET", "/clients/{id}/usage", access=Access.OPERATOR, answers={200: UsageAnswer})
def read_client_usage(call: Call, client_id: str) -> Response:
    """Read what became of a client's requests in the last 24 hours, and what is left of its windows."""
    return _usage(call, client_id)


def _usage(call: Call, client_id: str) -> Response:
    call.api.rejections.write()  # what this process knows and has not written yet
    limits = client_of(call.api.clients.get(client_id)).limits
    windows = [
        WindowAnswer.model_validate({"window": _WINDOW_NAMES[limit.seconds], **left._asdict()})
        for limit, left in zip(limits, call.api.quotas.windows(client_id, limits), strict=True)
    ]
    hours = [HourAnswer(**row._asdict()) for row in call.api.clients.usage(client_id)]
    return answer(UsageAnswer(hours=hours, windows=windows))


# --- between rows and bodies -----------------------------------------------------------------------------


def _columns(body: ClientBody) -> dict[str, Any]:
    values = body.model_dump(exclude={"rate_limits"})
    limits = body.rate_limits.model_dump(by_alias=True, exclude_none=True) if body.rate_limits else {}
    return values | {"rate_limits": limits}


def _writable(row: ClientRow) -> dict[str, Any]:
    return {
        name: value
        for name, value in answer_of(row).model_dump(by_alias=True).items()
        if name not in ClientBody.read_only
    }


def answer_of(row: ClientRow) -> ClientAnswer:
    """A stored row as it is shown."""
    return ClientAnswer.model_validate({name: getattr(row, name) for name in ClientAnswer.model_fields})


def _answered(row: ClientRow) -> Response:
    return answer(answer_of(row), etag=row.etag)
