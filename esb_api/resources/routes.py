"""Routes, and dry runs of them."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import partial
from typing import Any

from flask import Response

from esb_api.answers import answer, created, no_content
from esb_api.call import Call
from esb_api.etag import check_unchanged
from esb_api.operations import Resource
from esb_api.pages import cursor_id, page
from esb_api.params import either
from esb_api.patches import merge_patch, refuse_unknown_nulls, without_read_only
from esb_api.principals import Access
from esb_api.schemas.routes import (
    ConditionsTestAnswer,
    ConditionsTestBody,
    RouteAnswer,
    RouteBody,
    RoutePage,
    RouteQuery,
    RoutingTestAnswer,
    RoutingTestBody,
    SampleMessage,
)
from esb_workers.errors import Conflict, FieldError, Invalid, NotFound
from esb_workers.expressions.functions import Host, bound
from esb_workers.expressions.patterns import compile_conditions
from esb_workers.routing.messages import as_json
from esb_workers.routing.route import Route, compile_route
from esb_workers.routing.routes import Routes, document
from esb_workers.routing.table import RoutingTable
from esb_workers.store import lookup_tables, message_log, messages
from esb_workers.store import routes as store
from esb_workers.store.routes import RouteRow

routes = Resource("routes")


@routes.operation(
    "POST", "/routing/routes", access=Access.OPERATOR, body=RouteBody, raw=True, answers={201: RouteAnswer},
    refusals=(409,),
)  # fmt: skip
def create_route(call: Call, body: Any) -> Response:
    """Create a route.

    It governs every message accepted after this answer. A bad pattern, condition or expression is refused with
    its position.
    """
    row = _routes(call).register(body, by=call.principal.actor)
    return created(_answer_of(row), f"/routing/routes/{row.id}", etag=row.etag)


@routes.operation("GET", "/routing/routes", access=Access.OPERATOR, query=RouteQuery, answers={200: RoutePage})
def list_routes(call: Call, query: RouteQuery) -> Response:
    """List routes, newest first."""
    rows = _routes(call).page(query.limit, cursor_id(query.cursor), name=query.name, enabled=either(query.enabled))
    return answer(RoutePage(**page(rows, query.limit, _answer_of, lambda row: row.id)))


@routes.operation("GET", "/routing/routes/{id}", access=Access.OPERATOR, answers={200: RouteAnswer})
def read_route(call: Call, route_id: str) -> Response:
    """Read one route."""
    return _answered(_routes(call).get(route_id))


@routes.operation(
    "PUT", "/routing/routes/{id}", access=Access.OPERATOR, body=RouteBody, raw=True, answers={200: RouteAnswer},
    refusals=(409,), headers=("If-Match",),
)  # fmt: skip
def replace_route(call: Call, route_id: str, body: Any) -> Response:
    """Replace a route."""

    def edit(row: RouteRow) -> Any:
        check_unchanged(call, row)
        return body

    return _answered(_routes(call).change(route_id, edit, by=call.principal.actor))


@routes.operation(
    "PATCH", "/routing/routes/{id}", access=Access.OPERATOR, body=RouteBody, answers={200: RouteAnswer},
    refusals=(409,), headers=("If-Match",),
)  # fmt: skip
def patch_route(call: Call, route_id: str, body: Any) -> Response:
    """Change a route by a merge patch (RFC 7386). Null resets a field to its default; lists are replaced."""
    if not isinstance(body, dict):
        raise Invalid([FieldError("", "must be an object")])
    patch = without_read_only(RouteBody, body)
    refuse_unknown_nulls(RouteBody, patch)

    def edit(row: RouteRow) -> Any:
        check_unchanged(call, row)
        return merge_patch(document(row), patch)

    return _answered(_routes(call).change(route_id, edit, by=call.principal.actor))


@routes.operation("DELETE", "/routing/routes/{id}", access=Access.OPERATOR, answers={204: None}, headers=("If-Match",))
def delete_route(call: Call, route_id: str) -> Response:
    """Delete a route. What it has routed already is still delivered, by its rules."""
    _routes(call).delete(route_id, partial(check_unchanged, call), by=call.principal.actor)
    return no_content()


def _routes(call: Call) -> Routes:
    return Routes(call.api.database, call.api.bus.router.renew_soon)


def _answer_of(row: RouteRow) -> RouteAnswer:
    moments = {"id": row.id, "createdAt": row.created_at, "updatedAt": row.updated_at}
    return RouteAnswer.model_validate(document(row) | moments)


def _answered(row: RouteRow) -> Response:
    return answer(_answer_of(row), etag=row.etag)


# --- dry runs --------------------------------------------------------------------------------------------


@routes.operation(
    "POST", "/routing/test", access=Access.OPERATOR, body=RoutingTestBody, answers={200: RoutingTestAnswer},
    refusals=(404, 409),
)  # fmt: skip
def test_routing(call: Call, body: RoutingTestBody) -> Response:
    """Say what routes would do with a message; nothing is sent.

    Give `message`, or the `messageId` of a stored one; with `route`, that route is tried instead of those saved.
    Or give `route` and `last`: the route is tried on so many of the stored messages, newest first.
    """
    if [body.message, body.message_id, body.last].count(None) != 2:
        raise Invalid([FieldError("message", "give one of message, messageId and last")])
    if body.last is not None:
        return answer(_tried_on_stored(call, body.route, body.last))
    sample = _stored(call, body.message_id) if body.message_id else _given(call, body.message)
    table = RoutingTable([compile_tried(body.route)] if body.route is not None else _saved(call))
    with bound(_host(call)):
        verdicts = table.explain(sample, datetime.now(UTC))
    return answer({"matched": any(verdict["matched"] for verdict in verdicts), "items": verdicts})


def _tried_on_stored(call: Call, route: dict[str, Any] | None, last: int) -> dict[str, Any]:
    if route is None:
        raise Invalid([FieldError("route", "is required with last")])
    table = RoutingTable([compile_tried(route)])
    with call.api.database.cursor() as cursor:
        stored = messages.newest(cursor, last)
    verdicts = []
    with bound(_host(call)):
        for one in stored:
            shown = {"messageId": one.external_id or one.id, "messageType": one.type}
            verdicts += [shown | verdict for verdict in table.explain(as_json(one), datetime.now(UTC))]
    return {"matched": any(verdict["matched"] for verdict in verdicts), "items": verdicts}


def compile_tried(route: dict[str, Any]) -> Route:
    """A route that need not be saved. Raises Invalid with paths below `route`."""
    try:
        return compile_route({"name": "route"} | route)
    except Invalid as error:
        raise Invalid([FieldError(f"route.{e.path}" if e.path else "route", e.message) for e in error.errors]) from None


def _saved(call: Call) -> list[Route]:
    with call.api.database.cursor() as cursor:
        rows = store.in_force(cursor)
    return [compile_route(document(row), route_id=row.id) for row in rows]


def _host(call: Call) -> Host:
    with call.api.database.cursor() as cursor:
        return Host(tables=lookup_tables.in_force(cursor))


def _given(call: Call, message: SampleMessage | None) -> dict[str, Any]:
    assert message is not None
    return {
        "source": message.source,
        "messageType": message.message_type,
        "payload": message.payload,
        "headers": message.headers,
        "correlationId": message.correlation_id or call.correlation_id,
    }


def _stored(call: Call, message_id: str) -> dict[str, Any]:
    with call.api.database.cursor() as cursor:
        found = message_log.find(cursor, message_id, None)
        stored = messages.load(cursor, [found]).get(found) if found else None
    if stored is None:
        raise NotFound
    if stored.payload is None:
        raise Conflict("The message was redacted.", code="redacted")
    return as_json(stored)


@routes.operation(
    "POST", "/routing/conditions/test", access=Access.OPERATOR, body=ConditionsTestBody,
    answers={200: ConditionsTestAnswer},
)  # fmt: skip
def test_conditions(call: Call, body: ConditionsTestBody) -> Response:
    """Say whether an event matches conditions, and if not, which clause said no."""
    reasons = compile_conditions(body.conditions).explain(body.event)
    return answer({"matched": not reasons, "reasons": reasons})
