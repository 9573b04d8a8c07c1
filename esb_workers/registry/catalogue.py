"""The catalogue of message types: what is sent, held to its type's schema, and the changes people make to it.

Every process remembers which types are checked, for the revision of the catalogue it has read. The transaction that
accepts a message looks whether that is still the present one, so that a change governs every message accepted after
its answer. A bus whose catalogue is empty pays a look into an empty dictionary.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, Final, NamedTuple

from esb_workers.errors import Conflict, FieldError, Invalid
from esb_workers.expressions.compatibility import Change, Compatibility, breaking, changes, same_json
from esb_workers.expressions.schemas import Schema, compile_schema
from esb_workers.registry.registrations import found, unique
from esb_workers.store import audit, revision
from esb_workers.store import message_types as store
from esb_workers.store.engine import Database, Transaction
from esb_workers.store.json import dumps
from esb_workers.store.message_types import CheckedType, TypeRow, VersionRow

log = logging.getLogger("esb.catalogue")

TOPIC: Final = "message_types"
#: Compiled schemas kept; they are forgotten all at once beyond it.
MOST_SCHEMAS: Final = 1000


class Judgement(NamedTuple):
    """A payload was looked at, by the catalogue of `revision`; `warning` is what is stored of one that does not fit."""

    revision: int
    warning: dict[str, Any] | None


class Catalogue:
    """What one process knows of the types that are checked. Safe for threads."""

    def __init__(self, database: Database) -> None:
        self._database = database
        # Replaced as a whole: threads need no lock.
        self._known: tuple[int, Mapping[str, CheckedType]] = (-1, {})
        self._schemas: dict[tuple[str, int], Schema] = {}  # versions never change

    def refresh(self) -> int:
        """The catalogue's present revision; what was remembered of another one is read anew."""
        with self._database.cursor() as cursor:
            # The number first: rows read after it may be newer than it says, never older.
            number = revision.of_topic(cursor, TOPIC)
            if number != self._known[0]:
                self._known = (number, {row.name: row for row in store.checked(cursor)})
        return number

    def judge(self, message_type: str, payload: Any, path: str = "payload") -> Judgement:
        """Look at a payload. Raises Invalid (`payload_invalid`) for one that its type's schema turns down."""
        number, types = self._known
        if number < 0:
            self.refresh()
            number, types = self._known
        found = types.get(message_type) if types else None
        if found is None:
            return Judgement(number, None)
        faults = self._schema(found).faults(payload, path)
        if not faults:
            return Judgement(number, None)
        if found.mode == "enforce":
            if self.refresh() != number:  # a refusal stands only by what is so now
                return self.judge(message_type, payload, path)
            raise Invalid(faults, code="payload_invalid")
        log.warning(
            "a payload does not fit its type's schema",
            extra={"message_type": message_type, "version": found.version, "paths": [fault.path for fault in faults]},
        )
        told = [fault._asdict() for fault in faults]
        return Judgement(number, {"type": message_type, "version": found.version, "faults": told})

    def _schema(self, wanted: CheckedType) -> Schema:
        key = (wanted.type_id, wanted.version)
        found = self._schemas.get(key)
        if found is None:
            with self._database.cursor() as cursor:
                text = store.schema(cursor, *key)
            # Deleted meanwhile: the accepting transaction will refuse what was judged by a stale revision.
            found = compile_schema(json.loads(text) if text is not None else True, "schema")
            if len(self._schemas) >= MOST_SCHEMAS:
                self._schemas = {}
            self._schemas[key] = found
        return found


class TypeValues(NamedTuple):
    """What a caller can write of a type."""

    name: str
    mode: str
    compatibility: str
    description: str | None
    active_version: int | None
    metadata: dict[str, Any]
    schema: Any


class Shown(NamedTuple):
    """A type, and the version that counts."""

    type: TypeRow
    version: VersionRow


class MessageTypes:
    """The catalogue as people change it. Each change is one transaction, with its audit row and a new revision."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def register(self, values: TypeValues, *, by: str) -> Shown:
        """A new type, its schema as version 1. Raises Invalid naming every fault, Conflict if the name is taken."""
        compile_schema(values.schema, "schema")
        with _unique_name(), self._database.transaction() as connection:
            row = store.add(connection, _columns(values, 1))
            version = store.add_version(connection, row.id, 1, dumps(values.schema), None, by)
            _changed(connection, by, "create", row)
        return Shown(row, version)

    def get(self, type_id: str) -> Shown:
        """Raises NotFound."""
        with self._database.read() as connection:
            return _shown(connection, found(store.get(connection, type_id)))

    def page(
        self, limit: int, after: str | None, *, name: Sequence[str] | None = None, mode: Sequence[str] | None = None
    ) -> list[Shown]:
        """Types, newest first, one more than `limit` if there are more."""
        with self._database.read() as connection:
            return [Shown(*pair) for pair in store.page(connection, limit, after, name=name, mode=mode)]

    def change(self, type_id: str, edit: Callable[[Shown], TypeValues], *, by: str) -> Shown:
        """Write what `edit` makes of the present state; another schema than the one shown becomes a new version.

        Raises NotFound, Invalid, Conflict (`name_taken`, `schema_incompatible`).
        """
        with _unique_name(), self._database.transaction() as connection:
            before = _shown(connection, found(store.get(connection, type_id, lock=True)))
            values = edit(before)
            row, version = before.type, None
            if not same_json(values.schema, json.loads(before.version.schema)):
                row, version = self._add(connection, before.type, values.schema, values.compatibility, None, by)
            row = store.change(connection, type_id, _columns(values, row.latest))
            fields = [name for name in TypeRow._fields[1:8] if getattr(before.type, name) != getattr(row, name)]
            _changed(connection, by, "change", row, fields=fields, version=version and version.version)
            return _shown(connection, row)

    def add_version(self, type_id: str, schema: Any, description: str | None, *, by: str) -> VersionRow:
        """A further version, which counts from now on unless another is held active.

        Raises NotFound, Invalid, Conflict (`schema_incompatible`).
        """
        with self._database.transaction() as connection:
            before = found(store.get(connection, type_id, lock=True))
            row, version = self._add(connection, before, schema, before.compatibility, description, by)
            row = store.change(connection, type_id, {"latest": version.version})
            _changed(connection, by, "add_version", row, version=version.version)
        return version

    def _add(
        self, connection: Transaction, row: TypeRow, schema: Any, rule: str, description: str | None, by: str
    ) -> tuple[TypeRow, VersionRow]:
        compile_schema(schema, "schema")
        _, broken = self._compared(connection, row, schema, rule)
        if broken:
            raise Conflict(
                f"The schema is not {rule} compatible with version {row.latest}: {broken[0].path or 'the payload'}"
                f" {broken[0].message}.",
                code="schema_incompatible",
                changes=[shown_change(change) for change in broken],
            )
        number = row.latest + 1
        version = store.add_version(connection, row.id, number, dumps(schema), description, by)
        return row._replace(latest=number), version

    def compare(self, type_id: str, schema: Any, rule: str | None) -> tuple[TypeRow, str, list[Change], list[Change]]:
        """What a schema changes beside the newest version: the type, the rule, all changes, and those it forbids.

        Raises NotFound, Invalid.
        """
        compile_schema(schema, "schema")
        with self._database.read() as connection:
            row = found(store.get(connection, type_id))
            wanted = rule or row.compatibility
            return (row, wanted, *self._compared(connection, row, schema, wanted))

    def _compared(
        self, connection: Transaction, row: TypeRow, schema: Any, rule: Any
    ) -> tuple[list[Change], list[Change]]:
        newest = store.version(connection, row.id, row.latest)
        assert newest is not None
        found = changes(json.loads(newest.schema), schema)
        wanted: Compatibility = rule
        return found, breaking(found, wanted)

    def faults(self, type_id: str, number: int | None, payload: Any) -> tuple[int, list[FieldError]]:
        """What is wrong with a payload by a version (None: the one that counts), and which. Raises NotFound."""
        with self._database.read() as connection:
            row = found(store.get(connection, type_id))
            version = _version(connection, row, number or row.version)
        return version.version, compile_schema(json.loads(version.schema), "schema").faults(payload, "payload")

    def version(self, type_id: str, number: int) -> VersionRow:
        """Raises NotFound."""
        with self._database.read() as connection:
            return _version(connection, found(store.get(connection, type_id)), number)

    def versions(self, type_id: str, limit: int, before: int | None) -> list[VersionRow]:
        """Versions, newest first, one more than `limit` if there are more. Raises NotFound."""
        with self._database.read() as connection:
            found(store.get(connection, type_id))
            return store.versions(connection, type_id, limit, before)

    def delete(self, type_id: str, check: Callable[[TypeRow], None], *, by: str) -> None:
        """Take a type out of the catalogue: what is sent of it is looked at no longer. Raises NotFound."""
        with self._database.transaction() as connection:
            row = found(store.get(connection, type_id, lock=True))
            check(row)
            store.remove(connection, type_id)
            _changed(connection, by, "delete", row)


def shown_change(change: Change) -> dict[str, Any]:
    """A change as plain data."""
    return {"path": change.path, "message": change.message, "breaks": sorted(change.breaks)}


def _columns(values: TypeValues, latest: int) -> dict[str, Any]:
    if values.active_version is not None and values.active_version > latest:
        raise Invalid([FieldError("activeVersion", f"is no version of this type: its newest is {latest}")])
    return {name: value for name, value in values._asdict().items() if name != "schema"} | {"latest": latest}


def _shown(connection: Transaction, row: TypeRow) -> Shown:
    return Shown(row, _version(connection, row, row.version))


def _version(connection: Transaction, row: TypeRow, number: int) -> VersionRow:
    return found(store.version(connection, row.id, number))


def _unique_name() -> AbstractContextManager[None]:
    return unique("message_type_name", "The catalogue has this message type.")


def _changed(connection: Transaction, by: str, action: str, row: TypeRow, **detail: Any) -> None:
    told = {name: value for name, value in detail.items() if value is not None}
    audit.changed(connection, TOPIC, audit.Change(by, action, "message_type", row.id, row.name, told or None))
