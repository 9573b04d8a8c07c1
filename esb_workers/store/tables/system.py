"""What the bus knows of itself."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, FetchedValue, Integer, SmallInteger, Table, Text

from esb_workers.store.tables.columns import ID, Json, Moment, metadata

schema_version = Table(
    "schema_version",
    metadata,
    Column("version", Integer, primary_key=True),
    Column("min_code", Integer, nullable=False),
    Column("applied_at", Moment, nullable=False, server_default=FetchedValue()),
)
revision = Table(
    "revision",
    metadata,
    Column("topic", Text, primary_key=True),
    Column("n", BigInteger, nullable=False, server_default=FetchedValue()),
)
counter = Table(
    "counter",
    metadata,
    Column("name", Text, primary_key=True),
    Column("pool", SmallInteger, primary_key=True, autoincrement=False),
    Column("n", BigInteger, nullable=False, server_default=FetchedValue()),
)
audit = Table(
    "audit",
    metadata,
    Column("id", ID, primary_key=True),
    Column("at", Moment, nullable=False, server_default=FetchedValue()),
    Column("actor", Text, nullable=False),
    Column("action", Text, nullable=False),
    Column("resource", Text, nullable=False),
    Column("resource_id", Text, nullable=False),
    Column("name", Text),
    Column("detail", Json),
)
