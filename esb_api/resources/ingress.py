"""Inbound webhooks: their definitions, and what they refused."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from typing import Any

from flask import Response

from esb_api.answers import answer, created, no_content, secret
from esb_api.call import Call
from esb_api.etag import check_unchanged
from esb_api.operations import Resource
from esb_api.pages import cursor_id, page
from esb_api.params import either
from esb_api.patches import merged
from esb_api.principals import Access
from esb_api.schemas.ingress import (
    IngressAnswer,
    IngressBody,
    IngressPage,
    IngressQuery,
    MadeIngressAnswer,
    RefusalAnswer,
    RefusalPage,
    RefusalQuery,
    RotatedAnswer,
    SecretRotationBody,
)
from esb_workers.store.ingress import IngressRow, RefusalRow
from esb_workers.webhooks.registry import Definition, Made

ingress = Resource("ingress")

#: What of a body is no column of its own, by its name in Python.
_REST = ("verification", "mapping", "challenge", "form_field", "rate_limits", "metadata")


@ingress.operation(
    "POST", "/routing/ingress", access=Access.OPERATOR, body=IngressBody, answers={201: MadeIngressAnswer},
    refusals=(409,),
)  # fmt: skip
def create_ingress(call: Call, body: IngressBody) -> Response:
    """Register an inbound webhook.

    Without `verification.secrets` a secret is made, and shown in this answer only.
    """
    made = call.api.ingresses.register(_definition(body), by=call.principal.actor)
    model = MadeIngressAnswer(**_fields(made.row), secret=made.secret)
    return secret(created(model, f"/routing/ingress/{made.row.id}", etag=made.row.etag))


@ingress.operation("GET", "/routing/ingress", access=Access.OPERATOR, query=IngressQuery, answers={200: IngressPage})
def list_ingresses(call: Call, query: IngressQuery) -> Response:
    """List inbound webhooks, newest first."""
    rows = call.api.ingresses.page(query.limit, cursor_id(query.cursor), name=query.name, enabled=either(query.enabled))
    return answer(IngressPage(**page(rows, query.limit, _answer_of, lambda row: row.id)))


@ingress.operation("GET", "/routing/ingress/{id}", access=Access.OPERATOR, answers={200: IngressAnswer})
def read_ingress(call: Call, ingress_id: str) -> Response:
    """Read one inbound webhook."""
    row = call.api.ingresses.get(ingress_id)
    return answer(_answer_of(row), etag=row.etag)


@ingress.operation(
    "PUT", "/routing/ingress/{id}", access=Access.OPERATOR, body=IngressBody, answers={200: MadeIngressAnswer},
    refusals=(409,), headers=("If-Match",),
)  # fmt: skip
def replace_ingress(call: Call, ingress_id: str, body: IngressBody) -> Response:
    """Replace an inbound webhook. Secrets that are not given stay, unless the verification is of another type."""
    return _change(call, ingress_id, lambda _: body)


@ingress.operation(
    "PATCH", "/routing/ingress/{id}", access=Access.OPERATOR, body=IngressBody, answers={200: MadeIngressAnswer},
    refusals=(409,), headers=("If-Match",),
)  # fmt: skip
def patch_ingress(call: Call, ingress_id: str, body: Any) -> Response:
    """Change an inbound webhook by a merge patch (RFC 7386). Another type of verification replaces it whole."""
    return _change(call, ingress_id, lambda row: merged(IngressBody, _writable(row, body), body))


def _change(call: Call, ingress_id: str, make: Callable[[IngressRow], IngressBody]) -> Response:
    def edit(row: IngressRow) -> Definition:
        check_unchanged(call, row)
        return _definition(make(row))

    return _made(call.api.ingresses.change(ingress_id, edit, by=call.principal.actor))


@ingress.operation(
    "DELETE", "/routing/ingress/{id}", access=Access.OPERATOR, answers={204: None}, headers=("If-Match",)
)
def delete_ingress(call: Call, ingress_id: str) -> Response:
    """Take an inbound webhook away, at once. The messages it accepted stay."""
    call.api.ingresses.delete(ingress_id, partial(check_unchanged, call), by=call.principal.actor)
    return no_content()


@ingress.operation(
    "POST", "/routing/ingress/{id}/secret/rotate", access=Access.OPERATOR, body=SecretRotationBody, body_optional=True,
    answers={200: RotatedAnswer}, refusals=(409,),
)  # fmt: skip
def rotate_ingress_secret(call: Call, ingress_id: str, body: SecretRotationBody) -> Response:
    """Put a new secret in place; during the overlap those before count as well.

    One that is made here is shown in this answer only.
    """
    made = call.api.ingresses.rotate(ingress_id, body.secret, body.overlap, by=call.principal.actor)
    return secret(answer(RotatedAnswer(secret=made.secret, held_secrets=_held(made.row))))


@ingress.operation(
    "GET", "/routing/ingress/{id}/refusals", access=Access.OPERATOR, query=RefusalQuery, answers={200: RefusalPage}
)
def list_ingress_refusals(call: Call, ingress_id: str, query: RefusalQuery) -> Response:
    """List requests that were refused, newest first, with the reason. The newest thousand are kept."""
    call.api.refusals.write()  # what this process knows and has not written yet
    rows = call.api.ingresses.refusals(
        ingress_id, query.limit, cursor_id(query.cursor), code=query.code, since=query.from_, until=query.to
    )
    return answer(RefusalPage(**page(rows, query.limit, _refusal, lambda row: row.id)))


# --- between rows and bodies -----------------------------------------------------------------------------


def _definition(body: IngressBody) -> Definition:
    rest = body.model_dump(by_alias=True, exclude_none=True, include=set(_REST))
    secrets = rest["verification"].pop("secrets", None)
    token = (rest.get("challenge") or {}).pop("token", None)
    rest = {name: value for name, value in rest.items() if value or name == "mapping"}
    # A payload that maps to null is something else than one that is left out.
    if "payload" in body.mapping.model_fields_set:
        rest["mapping"]["payload"] = body.mapping.payload
    return Definition(body.name, body.enabled, rest, secrets, token)


def _fields(row: IngressRow) -> dict[str, Any]:
    shown = {name: row.body.get(name) for name in ("verification", "mapping", "challenge")}
    return shown | {
        "id": row.id,
        "name": row.name,
        "path": f"/ingress/{row.name}",
        "enabled": row.enabled,
        "form_field": row.body.get("formField"),
        "rate_limits": row.body.get("rateLimits") or {},
        "metadata": row.body.get("metadata") or {},
        "held_secrets": _held(row),
        "created_at": row.created_at,
        "updated_at": row.updated_at,
    }


def _held(row: IngressRow) -> list[dict[str, Any]]:
    ends = [one["until"] for one in row.secrets if one["until"] is None or one["until"] > time.time()]
    return [{"until": end and datetime.fromtimestamp(end, UTC)} for end in ends]


def _answer_of(row: IngressRow) -> IngressAnswer:
    return IngressAnswer(**_fields(row))


def _made(made: Made) -> Response:
    return secret(answer(MadeIngressAnswer(**_fields(made.row), secret=made.secret), etag=made.row.etag))


def _writable(row: IngressRow, patch: Any) -> dict[str, Any]:
    shown = _answer_of(row).model_dump(mode="json", by_alias=True)
    current = {name: value for name, value in shown.items() if name not in IngressBody.read_only and value is not None}
    wanted = patch.get("verification")
    if (
        isinstance(wanted, dict)
        and wanted.get("type", current["verification"]["type"]) != row.body["verification"]["type"]
    ):
        current["verification"] = {}
    return current


def _refusal(row: RefusalRow) -> RefusalAnswer:
    return RefusalAnswer(**{name: value for name, value in row._asdict().items() if name != "ingress_id"})
