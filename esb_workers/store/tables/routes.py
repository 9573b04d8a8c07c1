"""Routes, and what they look at: message types and lookup tables."""

from __future__ import annotations

from sqlalchemy import BigInteger, Boolean, Column, FetchedValue, Integer, Table, Text

from esb_workers.store.tables.columns import ID, Json, Moment, metadata

route = Table(
    "route",
    metadata,
    Column("id", ID, primary_key=True),
    Column("name", Text, nullable=False),
    Column("priority", Integer, nullable=False, server_default=FetchedValue()),
    Column("enabled", Boolean, nullable=False, server_default=FetchedValue()),
    Column("body", Json, nullable=False),
    Column("etag", Integer, nullable=False, server_default=FetchedValue()),
    Column("created_at", Moment, nullable=False, server_default=FetchedValue()),
    Column("updated_at", Moment, nullable=False, server_default=FetchedValue()),
    Column("deleted_at", Moment),
    Column("rev", BigInteger, nullable=False, server_default=FetchedValue()),
)
message_type = Table(
    "message_type",
    metadata,
    Column("id", ID, primary_key=True),
    Column("name", Text, nullable=False),
    Column("mode", Text, nullable=False, server_default=FetchedValue()),
    Column("compatibility", Text, nullable=False, server_default=FetchedValue()),
    Column("description", Text),
    Column("latest", Integer, nullable=False, server_default=FetchedValue()),
    Column("active_version", Integer),
    Column("metadata", Json, nullable=False, server_default=FetchedValue()),
    Column("etag", Integer, nullable=False, server_default=FetchedValue()),
    Column("created_at", Moment, nullable=False, server_default=FetchedValue()),
    Column("updated_at", Moment, nullable=False, server_default=FetchedValue()),
)
message_type_version = Table(
    "message_type_version",
    metadata,
    Column("type_id", ID, primary_key=True),
    Column("version", Integer, primary_key=True),
    Column("schema", Text, nullable=False),
    Column("description", Text),
    Column("created_by", Text, nullable=False),
    Column("created_at", Moment, nullable=False, server_default=FetchedValue()),
)
lookup_table = Table(
    "lookup_table",
    metadata,
    Column("id", ID, primary_key=True),
    Column("name", Text, nullable=False),
    Column("description", Text),
    Column("entries", Json, nullable=False),
    Column("etag", Integer, nullable=False, server_default=FetchedValue()),
    Column("created_at", Moment, nullable=False, server_default=FetchedValue()),
    Column("updated_at", Moment, nullable=False, server_default=FetchedValue()),
)
