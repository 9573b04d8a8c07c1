"""The catalogue of message types."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from typing import Any

import orjson
from flask import Response

from esb_api.answers import answer, created, no_content
from esb_api.call import Call
from esb_api.etag import check_unchanged
from esb_api.operations import Resource
from esb_api.pages import cursor_id, decode_cursor, page
from esb_api.params import PageQuery
from esb_api.patches import merged
from esb_api.principals import Access
from esb_api.schemas.message_types import (
    CompatibilityAnswer,
    CompatibilityBody,
    MessageTypeAnswer,
    MessageTypeBody,
    MessageTypePage,
    MessageTypeQuery,
    PayloadAnswer,
    PayloadBody,
    VersionAnswer,
    VersionBody,
    VersionPage,
)
from esb_workers.errors import NotFound
from esb_workers.registry.catalogue import Shown, TypeValues, shown_change
from esb_workers.store.message_types import VersionRow

message_types = Resource("message-types")


@message_types.operation(
    "POST", "/routing/message-types", access=Access.OPERATOR, body=MessageTypeBody, answers={201: MessageTypeAnswer},
    refusals=(409,),
)  # fmt: skip
def create_message_type(call: Call, body: MessageTypeBody) -> Response:
    """Put a message type into the catalogue, its schema as version 1.

    What is sent of the type from now on is held to it, as `mode` says.
    """
    shown = call.api.message_types.register(_values(body), by=call.principal.actor)
    return created(_answer_of(shown), f"/routing/message-types/{shown.type.id}", etag=shown.type.etag)


@message_types.operation(
    "GET", "/routing/message-types", access=Access.OPERATOR, query=MessageTypeQuery, answers={200: MessageTypePage}
)
def list_message_types(call: Call, query: MessageTypeQuery) -> Response:
    """List message types, newest first."""
    rows = call.api.message_types.page(query.limit, cursor_id(query.cursor), name=query.name, mode=query.mode)
    return answer(MessageTypePage(**page(rows, query.limit, _answer_of, lambda shown: shown.type.id)))


@message_types.operation("GET", "/routing/message-types/{id}", access=Access.OPERATOR, answers={200: MessageTypeAnswer})
def read_message_type(call: Call, type_id: str) -> Response:
    """Read one message type, with the schema that counts."""
    return _answered(call.api.message_types.get(type_id))


@message_types.operation(
    "PUT", "/routing/message-types/{id}", access=Access.OPERATOR, body=MessageTypeBody,
    answers={200: MessageTypeAnswer}, refusals=(409,), headers=("If-Match",),
)  # fmt: skip
def replace_message_type(call: Call, type_id: str, body: MessageTypeBody) -> Response:
    """Replace a message type. Another schema than the one that counts becomes a new version."""
    return _change(call, type_id, lambda _: body)


@message_types.operation(
    "PATCH", "/routing/message-types/{id}", access=Access.OPERATOR, body=MessageTypeBody,
    answers={200: MessageTypeAnswer}, refusals=(409,), headers=("If-Match",),
)  # fmt: skip
def patch_message_type(call: Call, type_id: str, body: Any) -> Response:
    """Change a message type by a merge patch (RFC 7386). A schema that it changes becomes a new version."""
    return _change(call, type_id, lambda shown: merged(MessageTypeBody, _writable(shown), body))


def _change(call: Call, type_id: str, make: Callable[[Shown], MessageTypeBody]) -> Response:
    def edit(shown: Shown) -> TypeValues:
        check_unchanged(call, shown.type)
        return _values(make(shown))

    return _answered(call.api.message_types.change(type_id, edit, by=call.principal.actor))


@message_types.operation(
    "DELETE", "/routing/message-types/{id}", access=Access.OPERATOR, answers={204: None}, headers=("If-Match",)
)
def delete_message_type(call: Call, type_id: str) -> Response:
    """Take a message type out of the catalogue, with its versions. What is sent of it is looked at no longer."""
    call.api.message_types.delete(type_id, partial(check_unchanged, call), by=call.principal.actor)
    return no_content()


# --- versions --------------------------------------------------------------------------------------------


@message_types.operation(
    "POST", "/routing/message-types/{id}/versions", access=Access.OPERATOR, body=VersionBody,
    answers={201: VersionAnswer}, refusals=(409,),
)  # fmt: skip
def create_message_type_version(call: Call, type_id: str, body: VersionBody) -> Response:
    """Add a version of a type's schema.

    One that breaks what the type's `compatibility` protects is refused: 409, `schema_incompatible`, and each change.
    """
    row = call.api.message_types.add_version(type_id, body.schema_, body.description, by=call.principal.actor)
    return created(_version(row), f"/routing/message-types/{type_id}/versions/{row.version}")


@message_types.operation(
    "GET", "/routing/message-types/{id}/versions", access=Access.OPERATOR, query=PageQuery, answers={200: VersionPage}
)
def list_message_type_versions(call: Call, type_id: str, query: PageQuery) -> Response:
    """List the versions of a type's schema, newest first."""
    before = decode_cursor(query.cursor, int)
    rows = call.api.message_types.versions(type_id, query.limit, before[0] if before else None)
    return answer(VersionPage(**page(rows, query.limit, _version, lambda row: row.version)))


@message_types.operation(
    "GET", "/routing/message-types/{id}/versions/{version}", access=Access.OPERATOR, answers={200: VersionAnswer},
    texts=("version",),
)  # fmt: skip
def read_message_type_version(call: Call, type_id: str, version: str) -> Response:
    """Read one version of a type's schema."""
    if not (version.isascii() and version.isdigit() and 1 <= len(version) <= 9):
        raise NotFound
    return answer(_version(call.api.message_types.version(type_id, int(version))))


# --- dry runs --------------------------------------------------------------------------------------------


@message_types.operation(
    "POST", "/routing/message-types/{id}/compatibility", access=Access.OPERATOR, body=CompatibilityBody,
    answers={200: CompatibilityAnswer},
)  # fmt: skip
def test_compatibility(call: Call, type_id: str, body: CompatibilityBody) -> Response:
    """Say what a schema would change beside the newest version, and whether the type would take it. Nothing is kept."""
    row, rule, found, broken = call.api.message_types.compare(type_id, body.schema_, body.compatibility)
    told = {
        "compatible": not broken,
        "compatibility": rule,
        "comparedWith": row.latest,
        "changes": [shown_change(change) for change in found],
        "breaking": [shown_change(change) for change in broken],
    }
    return answer(CompatibilityAnswer.model_validate(told))


@message_types.operation(
    "POST", "/routing/message-types/{id}/validate", access=Access.OPERATOR, body=PayloadBody,
    answers={200: PayloadAnswer},
)  # fmt: skip
def validate_payload(call: Call, type_id: str, body: PayloadBody) -> Response:
    """Say whether a payload fits a type's schema, and where it does not. Nothing is sent."""
    version, faults = call.api.message_types.faults(type_id, body.version, body.payload)
    errors = [fault._asdict() for fault in faults]
    return answer(PayloadAnswer.model_validate({"valid": not faults, "version": version, "errors": errors}))


# --- between rows and bodies -----------------------------------------------------------------------------


def _values(body: MessageTypeBody) -> TypeValues:
    return TypeValues(**body.model_dump(exclude={"schema_"}), schema=body.schema_)


def _fields(shown: Shown) -> dict[str, Any]:
    row = shown.type
    return {
        "id": row.id,
        "name": row.name,
        "schema": json.loads(shown.version.schema),
        "mode": row.mode,
        "compatibility": row.compatibility,
        "description": row.description,
        "version": shown.version.version,
        "latestVersion": row.latest,
        "activeVersion": row.active_version,
        "metadata": row.metadata,
        "createdAt": row.created_at,
        "updatedAt": row.updated_at,
    }


def _answer_of(shown: Shown) -> MessageTypeAnswer:
    return MessageTypeAnswer.model_validate(_fields(shown))


def _answered(shown: Shown) -> Response:
    return answer(_answer_of(shown), etag=shown.type.etag)


def _writable(shown: Shown) -> dict[str, Any]:
    return {name: value for name, value in _fields(shown).items() if name not in MessageTypeBody.read_only}


def _version(row: VersionRow) -> VersionAnswer:
    values = {name: value for name, value in row._asdict().items() if name not in ("type_id", "schema")}
    return VersionAnswer.model_validate({**values, "schema": orjson.loads(row.schema)})
