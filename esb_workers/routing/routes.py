"""The changes people make to routes. Each is one transaction, with its audit row and a new revision."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, Final

from esb_workers.registry.registrations import found, unique
from esb_workers.routing.route import READ_ONLY, compile_route
from esb_workers.store import audit
from esb_workers.store import routes as store
from esb_workers.store.engine import Database
from esb_workers.store.routes import RouteRow

_COLUMNS: Final = ("name", "priority", "enabled")

#: May refuse a change, seeing the row as it stands (If-Match).
Check = Callable[[RouteRow], None]


class Routes:
    """The routes of a database. `told` is called after each change."""

    def __init__(self, database: Database, told: Callable[[], None] = lambda: None) -> None:
        self._database = database
        self._told = told

    def register(self, body: Any, *, by: str) -> RouteRow:
        """A new route. Raises Invalid naming every fault, Conflict if the name is taken."""
        values = columns(body)
        with _unique_name(), self._database.transaction() as connection:
            row = store.add(connection, values["name"], values["priority"], values["enabled"], values["body"])
            _changed(connection, by, "create", row)
        self._told()
        return row

    def get(self, route_id: str) -> RouteRow:
        """Raises NotFound."""
        with self._database.read() as connection:
            return found(store.get(connection, route_id))

    def page(
        self, limit: int, after: str | None, *, name: Sequence[str] | None = None, enabled: bool | None = None
    ) -> list[RouteRow]:
        """Routes, newest first, one more than `limit` if there are more."""
        with self._database.read() as connection:
            return store.page(connection, limit, after, name=name, enabled=enabled)

    def change(self, route_id: str, edit: Callable[[RouteRow], Any], *, by: str) -> RouteRow:
        """Write the body that `edit` makes of the present row. Raises NotFound, Invalid, Conflict."""
        with _unique_name(), self._database.transaction() as connection:
            before = found(store.get(connection, route_id, lock=True))
            row = store.change(connection, route_id, columns(edit(before)))
            _changed(connection, by, "change", row, fields=_differing(document(before), document(row)))
        self._told()
        return row

    def delete(self, route_id: str, check: Check, *, by: str) -> None:
        """Take a route out of use. What it has routed is still delivered, by its rules. Raises NotFound."""
        with self._database.transaction() as connection:
            row = found(store.get(connection, route_id, lock=True))
            check(row)
            store.mark_deleted(connection, route_id)
            _changed(connection, by, "delete", row)
        self._told()


def columns(body: Any) -> dict[str, Any]:
    """A route's JSON as it is stored. Raises Invalid naming every fault by its path."""
    compiled = compile_route(body)
    rest = {key: value for key, value in body.items() if value is not None and key not in {*_COLUMNS, *READ_ONLY}}
    return {"name": compiled.name, "priority": compiled.priority, "enabled": compiled.enabled, "body": rest}


def document(row: RouteRow) -> dict[str, Any]:
    """A stored route as it was written."""
    return {**row.body, "name": row.name, "priority": row.priority, "enabled": row.enabled}


def _differing(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    return sorted(key for key in {*before, *after} if before.get(key) != after.get(key))


def _unique_name() -> AbstractContextManager[None]:
    return unique("route_name", "A route of this name exists.")


def _changed(connection: Any, by: str, action: str, row: RouteRow, **detail: Any) -> None:
    audit.changed(connection, "routes", audit.Change(by, action, "route", row.id, row.name, detail or None))
