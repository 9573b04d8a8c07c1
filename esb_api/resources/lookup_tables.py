"""Lookup tables: what expressions of routes find by a key."""

from __future__ import annotations

from functools import partial
from typing import Any

from flask import Response

from esb_api.answers import answer, created, no_content
from esb_api.call import Call
from esb_api.etag import check_unchanged
from esb_api.operations import Resource
from esb_api.pages import cursor_id, page
from esb_api.patches import merged
from esb_api.principals import Access
from esb_api.schemas.lookup_tables import LookupTableAnswer, LookupTableBody, LookupTablePage, LookupTableQuery
from esb_workers.routing.lookups import LookupTables
from esb_workers.store.lookup_tables import LookupTableRow

lookup_tables = Resource("lookup-tables")


@lookup_tables.operation(
    "POST", "/routing/lookup-tables", access=Access.OPERATOR, body=LookupTableBody, answers={201: LookupTableAnswer},
    refusals=(409,),
)  # fmt: skip
def create_lookup_table(call: Call, body: LookupTableBody) -> Response:
    """Create a lookup table, for `lookup(table, key)` in expressions of routes."""
    row = _tables(call).register(_values(body), by=call.principal.actor)
    return created(_answer_of(row), f"/routing/lookup-tables/{row.id}", etag=row.etag)


@lookup_tables.operation(
    "GET", "/routing/lookup-tables", access=Access.OPERATOR, query=LookupTableQuery, answers={200: LookupTablePage}
)
def list_lookup_tables(call: Call, query: LookupTableQuery) -> Response:
    """List lookup tables, newest first."""
    rows = _tables(call).page(query.limit, cursor_id(query.cursor), name=query.name)
    return answer(LookupTablePage(**page(rows, query.limit, _answer_of, lambda row: row.id)))


@lookup_tables.operation("GET", "/routing/lookup-tables/{id}", access=Access.OPERATOR, answers={200: LookupTableAnswer})
def read_lookup_table(call: Call, table_id: str) -> Response:
    """Read one lookup table."""
    return _answered(_tables(call).get(table_id))


@lookup_tables.operation(
    "PUT", "/routing/lookup-tables/{id}", access=Access.OPERATOR, body=LookupTableBody,
    answers={200: LookupTableAnswer}, refusals=(409,), headers=("If-Match",),
)  # fmt: skip
def replace_lookup_table(call: Call, table_id: str, body: LookupTableBody) -> Response:
    """Replace a lookup table. It governs every message accepted after this answer."""

    def edit(row: LookupTableRow) -> dict[str, Any]:
        check_unchanged(call, row)
        return _values(body)

    return _answered(_tables(call).change(table_id, edit, by=call.principal.actor))


@lookup_tables.operation(
    "PATCH", "/routing/lookup-tables/{id}", access=Access.OPERATOR, body=LookupTableBody,
    answers={200: LookupTableAnswer}, refusals=(409,), headers=("If-Match",),
)  # fmt: skip
def patch_lookup_table(call: Call, table_id: str, body: Any) -> Response:
    """Change a lookup table by a merge patch (RFC 7386): of `entries`, keys given are set, null takes one away."""

    def edit(row: LookupTableRow) -> dict[str, Any]:
        check_unchanged(call, row)
        current = {"name": row.name, "description": row.description, "entries": row.entries}
        return _values(merged(LookupTableBody, current, body))

    return _answered(_tables(call).change(table_id, edit, by=call.principal.actor))


@lookup_tables.operation(
    "DELETE", "/routing/lookup-tables/{id}", access=Access.OPERATOR, answers={204: None}, headers=("If-Match",)
)
def delete_lookup_table(call: Call, table_id: str) -> Response:
    """Delete a lookup table. Expressions that name it fail from now on."""
    _tables(call).delete(table_id, partial(check_unchanged, call), by=call.principal.actor)
    return no_content()


def _tables(call: Call) -> LookupTables:
    return LookupTables(call.api.database)


def _values(body: LookupTableBody) -> dict[str, Any]:
    return {"name": body.name, "description": body.description, "entries": body.entries}


def _answer_of(row: LookupTableRow) -> LookupTableAnswer:
    return LookupTableAnswer(**{name: value for name, value in row._asdict().items() if name != "etag"})


def _answered(row: LookupTableRow) -> Response:
    return answer(_answer_of(row), etag=row.etag)
