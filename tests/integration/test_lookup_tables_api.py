"""Lookup tables: kept, changed, and found by expressions of routes at once."""

from __future__ import annotations

from typing import Any

import pytest

from esb_workers.errors import ExpressionError
from esb_workers.expressions.cel import parse
from esb_workers.expressions.functions import bound
from esb_workers.routing.book import Book
from esb_workers.store import revision
from esb_workers.store.engine import Database
from tests.support.api import ApiClient

ENTRIES = {"eu": "eu-service", "us": {"service": "us-service", "tags": [1]}}


def make(api: ApiClient, **fields: Any) -> dict[str, Any]:
    body = {"name": "regions", "entries": ENTRIES} | fields
    answer = api.post("/routing/lookup-tables", body)
    assert answer.status_code == 201, answer.text
    return answer.get_json()


def test_a_lookup_table_is_made_read_changed_and_deleted_and_the_audit_tells(api: ApiClient) -> None:
    made = make(api, description="where to")
    path = f"/routing/lookup-tables/{made['id']}"
    assert api.get(path).get_json() == made
    patched = api.patch(path, {"entries": {"ap": 5, "eu": None}})
    assert patched.get_json()["entries"] == {"us": ENTRIES["us"], "ap": 5}
    assert patched.get_json()["description"] == "where to"
    stale = api.put(path, {"name": "regions", "entries": {}}, If_Match='"1"')
    assert stale.status_code == 412
    assert api.put(path, {"name": "regions", "entries": {"x": None}}).get_json()["entries"] == {"x": None}
    assert [item["name"] for item in api.get("/routing/lookup-tables?name=Regions").get_json()["items"]] == ["regions"]
    assert api.delete(path).status_code == 204
    assert api.get(path).status_code == 404
    acts = api.get("/system/audit?resource=lookup_table").get_json()["items"]
    assert [act["action"] for act in acts] == ["delete", "change", "change", "create"]
    assert acts[2]["detail"] == {"fields": ["entries"], "keys": ["ap", "eu"]}


@pytest.mark.parametrize(
    ("body", "status", "path"),
    [
        ({"entries": {}}, 422, "name"),
        ({"name": "a b", "entries": {}}, 422, "name"),
        ({"name": "t"}, 422, "entries"),
        ({"name": "t", "entries": []}, 422, "entries"),
        ({"name": "t", "entries": {"k": "x" * 70_000}}, 422, "entries.k"),
        ({"name": "t", "entries": {str(n): n for n in range(10_001)}}, 422, "entries"),
        ({"name": "t", "entries": {}, "other": 1}, 422, "other"),
    ],
)
def test_a_bad_lookup_table_is_refused_by_field(api: ApiClient, body: dict[str, Any], status: int, path: str) -> None:
    answer = api.post("/routing/lookup-tables", body)
    assert answer.status_code == status
    assert answer.get_json()["errors"][0]["path"] == path


def test_names_of_lookup_tables_are_unique_without_regard_to_case(api: ApiClient) -> None:
    make(api)
    assert api.post("/routing/lookup-tables", {"name": "Regions", "entries": {}}).status_code == 409


def test_a_dry_run_finds_what_the_table_holds(api: ApiClient) -> None:
    make(api)
    route = {
        "pattern": "#",
        "destinations": ["s"],
        "filter": "lookup('regions', headers.region, '') != ''",
        "transformation": {"type": "set", "fields": {"to": "${lookup('regions', headers.region)}"}},
    }
    message = {"messageType": "a", "payload": {}, "headers": {"region": "us"}}
    verdict = api.post("/routing/test", {"message": message, "route": route}).get_json()["items"][0]
    assert verdict["transformedPayload"] == {"to": ENTRIES["us"]}
    elsewhere = message | {"headers": {"region": "xx"}}
    assert api.post("/routing/test", {"message": elsewhere, "route": route}).get_json()["matched"] is False


def test_a_change_governs_whoever_looks_at_the_registrations_after_it(api: ApiClient, database: Database) -> None:
    book = Book(database)

    def look() -> Any:
        with database.cursor() as cursor:
            book.at(revision.current(cursor))
        with bound(book.host):
            return parse("lookup('regions', 'eu')").evaluate({})

    with pytest.raises(ExpressionError, match="no lookup table"):
        look()
    made = make(api)
    assert look() == "eu-service"
    api.patch(f"/routing/lookup-tables/{made['id']}", {"entries": {"eu": "other"}})
    assert look() == "other"
    api.delete(f"/routing/lookup-tables/{made['id']}")
    with pytest.raises(ExpressionError, match="no lookup table"):
        look()
