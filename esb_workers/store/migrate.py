"""Brings a database to this code's schema, or says why it cannot.

Code and schema may differ by a release while a cluster is upgraded, so what is checked at a start is not
equality: code stops only if the schema demands newer code, or is older than what this code needs.
"""

from __future__ import annotations

import time
from importlib import resources

import psycopg2

from esb_workers.errors import SchemaMismatch, Unavailable
from esb_workers.store.engine import Database, translated

#: The version that schema.sql describes; numbered migrations in `migrations/` lead up to it.
SCHEMA_VERSION = 1
#: The oldest code (by its SCHEMA_VERSION) that may work with this schema.
MIN_CODE = 1
#: The oldest schema that this code can work with.
NEEDS = 1

_LOCK = 4711001  # advisory lock: one migrator at a time


def migrate(url: str, *, wait_seconds: float = 0) -> int:
    """Create or upgrade the schema under an advisory lock; returns the version. Safe to call at any time.

    Waits up to `wait_seconds` for a server that does not answer yet. Raises Unavailable, SchemaMismatch.
    """
    connection = _connect(url, wait_seconds)
    try:
        with connection, connection.cursor() as cursor:
            _refuse_unless_unicode(cursor)
            cursor.execute("select pg_advisory_xact_lock(%s)", (_LOCK,))
            version = _version(cursor)
            if version > SCHEMA_VERSION:
                _refuse_unless_compatible(cursor)
                return version
            if version == 0:
                cursor.execute(_text("schema.sql"))
            for number in range(max(version, 1) + 1, SCHEMA_VERSION + 1) if version else ():
                cursor.execute(_migration(number))
            # Functions carry no data: they are laid anew each time, so that they always fit this code.
            for name in sorted(_names("functions")):
                cursor.execute(_text("functions", name))
            cursor.execute("select esb_partitions(2)")
            if version < SCHEMA_VERSION:
                cursor.execute(
                    "insert into schema_version (version, min_code) values (%s, %s)", (SCHEMA_VERSION, MIN_CODE)
                )
            return SCHEMA_VERSION
    except psycopg2.Error as error:
        raise translated(error) from error
    finally:
        connection.close()


def check(database: Database) -> int:
    """The schema's version, if this code can work with it. Raises SchemaMismatch, Unavailable."""
    with database.cursor() as cursor:
        version = _version(cursor)
        if version < NEEDS:
            found = f"is version {version}" if version else "has no schema of the bus"
            raise SchemaMismatch(f"the database {found}, this code needs version {NEEDS}: run `esb migrate`")
        if version > SCHEMA_VERSION:
            _refuse_unless_compatible(cursor)
        return version


def _refuse_unless_compatible(cursor: psycopg2.extensions.cursor) -> None:
    cursor.execute("select version, min_code from schema_version order by version desc limit 1")
    version, min_code = cursor.fetchone()  # type: ignore[misc]
    if min_code > SCHEMA_VERSION:
        raise SchemaMismatch(
            f"the database is version {version}, which needs code of schema version {min_code} or newer;"
            f" this code is {SCHEMA_VERSION}: upgrade it"
        )


def _refuse_unless_unicode(cursor: psycopg2.extensions.cursor) -> None:
    cursor.execute("select current_database(), current_setting('server_encoding')")
    name, encoding = cursor.fetchone()  # type: ignore[misc]
    if encoding != "UTF8":
        raise SchemaMismatch(
            f"the database {name} is encoded in {encoding}, which cannot hold every text: make it anew with"
            " `create database … encoding 'UTF8' template template0`"
        )


def _version(cursor: psycopg2.extensions.cursor) -> int:
    cursor.execute("select to_regclass('schema_version') is not null")
    if not cursor.fetchone()[0]:  # type: ignore[index]
        return 0
    cursor.execute("select coalesce(max(version), 0) from schema_version")
    return int(cursor.fetchone()[0])  # type: ignore[index]


def _connect(url: str, wait_seconds: float) -> psycopg2.extensions.connection:
    deadline = time.monotonic() + wait_seconds
    while True:
        try:
            return psycopg2.connect(url, connect_timeout=3)
        except psycopg2.OperationalError as error:
            if time.monotonic() >= deadline:
                raise Unavailable(f"the database does not answer: {str(error).strip()}") from error
            time.sleep(0.2)


def _names(folder: str) -> list[str]:
    return [f.name for f in resources.files(__package__).joinpath(folder).iterdir() if f.name.endswith(".sql")]


def _text(*path: str) -> str:
    return resources.files(__package__).joinpath(*path).read_text(encoding="utf-8")


def _migration(number: int) -> str:
    (name,) = (n for n in _names("migrations") if n.startswith(f"{number:04}_"))
    return _text("migrations", name)
