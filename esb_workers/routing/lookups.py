"""The changes people make to lookup tables. Each is one transaction, with its audit row and a new revision."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, Final

import orjson

from esb_workers.errors import Conflict, FieldError, Invalid
from esb_workers.expressions.growth import MAX_ENTRY
from esb_workers.registry.registrations import found, unique
from esb_workers.store import audit
from esb_workers.store import lookup_tables as store
from esb_workers.store.engine import Database
from esb_workers.store.lookup_tables import LookupTableRow

#: Every routing process keeps all of them in memory.
MAX_TABLES: Final = 100
MAX_ENTRIES: Final = 10_000

#: May refuse a change, seeing the row as it stands (If-Match).
Check = Callable[[LookupTableRow], None]


class LookupTables:
    """The lookup tables of a database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def register(self, values: dict[str, Any], *, by: str) -> LookupTableRow:
        """A new table: `name`, `description`, `entries`. Raises Invalid, Conflict if the name is taken."""
        check_entries(values["entries"])
        with _unique_name(), self._database.transaction() as connection:
            row = store.add(connection, values)
            _changed(connection, by, "create", row)
            if store.count(connection) > MAX_TABLES:
                raise Conflict(f"There are {MAX_TABLES} lookup tables: more are not kept.", code="too_many")
        return row

    def get(self, table_id: str) -> LookupTableRow:
        """Raises NotFound."""
        with self._database.read() as connection:
            return found(store.get(connection, table_id))

    def page(self, limit: int, after: str | None, *, name: Sequence[str] | None = None) -> list[LookupTableRow]:
        """Tables, newest first, one more than `limit` if there are more."""
        with self._database.read() as connection:
            return store.page(connection, limit, after, name=name)

    def change(self, table_id: str, edit: Callable[[LookupTableRow], dict[str, Any]], *, by: str) -> LookupTableRow:
        """Write the values that `edit` makes of the present row. Raises NotFound, Invalid, Conflict."""
        with _unique_name(), self._database.transaction() as connection:
            before = found(store.get(connection, table_id, lock=True))
            values = edit(before)
            check_entries(values["entries"])
            row = store.change(connection, table_id, values)
            fields = [name for name in values if getattr(before, name) != getattr(row, name)]
            _changed(connection, by, "change", row, fields=fields, keys=_differing(before.entries, row.entries))
        return row

    def delete(self, table_id: str, check: Check, *, by: str) -> None:
        """Delete a table; expressions that name it fail from now on. Raises NotFound."""
        with self._database.transaction() as connection:
            row = found(store.get(connection, table_id, lock=True))
            check(row)
            store.remove(connection, table_id)
            _changed(connection, by, "delete", row)


def check_entries(entries: Mapping[str, Any]) -> None:
    """Raises Invalid for too many entries, and for each that is too large."""
    if len(entries) > MAX_ENTRIES:
        raise Invalid([FieldError("entries", f"must not have more than {MAX_ENTRIES} keys")])
    faults = [
        FieldError(f"entries.{key}", f"must not be longer than {MAX_ENTRY} bytes as JSON")
        for key, value in entries.items()
        if len(orjson.dumps(value)) > MAX_ENTRY
    ]
    if faults:
        raise Invalid(faults)


def _differing(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """The first hundred keys that changed."""
    return sorted(
        key for key in {*before, *after} if (key in before, before.get(key)) != (key in after, after.get(key))
    )[:100]


def _unique_name() -> AbstractContextManager[None]:
    return unique("lookup_table_name", "A lookup table of this name exists.")


def _changed(connection: Any, by: str, action: str, row: LookupTableRow, **detail: Any) -> None:
    change = audit.Change(by, action, "lookup_table", row.id, row.name, detail or None)
    audit.changed(connection, "lookup_tables", change)
