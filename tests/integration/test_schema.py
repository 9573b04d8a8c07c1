"""schema.sql, the SQLAlchemy tables and what `esb migrate` makes agree."""

from __future__ import annotations

import pytest
from sqlalchemy import inspect

from esb_workers.errors import SchemaMismatch
from esb_workers.store.engine import Database
from esb_workers.store.migrate import SCHEMA_VERSION, check, migrate
from esb_workers.store.tables import metadata


def columns(database: Database) -> dict[str, dict[str, tuple[str, bool]]]:
    query = """
        select c.relname, a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull
          from pg_class c join pg_attribute a on a.attrelid = c.oid
         where c.relnamespace = 'public'::regnamespace and c.relkind in ('r', 'p') and not c.relispartition
           and a.attnum > 0 and not a.attisdropped"""
    found: dict[str, dict[str, tuple[str, bool]]] = {}
    with database.cursor() as cursor:
        cursor.execute(query)
        for table, column, kind, not_null in cursor.fetchall():
            found.setdefault(table, {})[column] = (kind, not_null)
    return found


def declared(database: Database) -> dict[str, dict[str, tuple[str, bool]]]:
    names = {
        "UUID": "uuid", "TEXT": "text", "INTEGER": "integer", "SMALLINT": "smallint", "BIGINT": "bigint",
        "TIMESTAMP WITH TIME ZONE": "timestamp with time zone", "JSONB": "jsonb", "BOOLEAN": "boolean",
        "FLOAT": "double precision", "BYTEA": "bytea", "TEXT[]": "text[]", "TIMESTAMP WITH TIME ZONE[]": "timestamp with time zone[]", '"char"': '"char"',
    }  # fmt: skip
    dialect = database.engine.dialect
    return {
        table.name: {c.name: (names[c.type.compile(dialect=dialect)], not c.nullable) for c in table.columns}
        for table in metadata.sorted_tables
    }


def test_the_tables_in_code_are_those_of_the_schema(database: Database) -> None:
    assert declared(database) == columns(database)


def test_primary_keys_and_defaults_agree(database: Database) -> None:
    inspector = inspect(database.engine)
    for table in metadata.sorted_tables:
        assert inspector.get_pk_constraint(table.name)["constrained_columns"] == [c.name for c in table.primary_key], (
            table.name
        )
        for column in inspector.get_columns(table.name):
            ours = table.columns[column["name"]]
            has_default = column["default"] is not None or "identity" in column
            assert has_default == (ours.server_default is not None), f"{table.name}.{ours.name}"


def test_migrating_again_changes_nothing(database: Database) -> None:
    before = columns(database)
    assert migrate(database.url) == SCHEMA_VERSION
    assert columns(database) == before


def test_a_database_without_the_schema_stops_the_start_and_says_what_to_do(database: Database) -> None:
    with database.cursor() as cursor:
        cursor.execute("delete from schema_version")
    with pytest.raises(SchemaMismatch, match="esb migrate"):
        check(database)


def test_a_newer_schema_that_still_takes_this_code_is_no_obstacle(database: Database) -> None:
    with database.cursor() as cursor:
        cursor.execute(
            "insert into schema_version (version, min_code) values (%s, %s)", (SCHEMA_VERSION + 1, SCHEMA_VERSION)
        )
    assert check(database) == SCHEMA_VERSION + 1


def test_a_newer_schema_that_needs_newer_code_stops_the_start(database: Database) -> None:
    with database.cursor() as cursor:
        cursor.execute(
            "insert into schema_version (version, min_code) values (%s, %s)", (SCHEMA_VERSION + 1, SCHEMA_VERSION + 1)
        )
    with pytest.raises(SchemaMismatch, match="upgrade"):
        check(database)
