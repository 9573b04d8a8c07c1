"""Clients: their keys and quotas."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, FetchedValue, Integer, LargeBinary, Table, Text

from esb_workers.store.tables.columns import ID, Json, Moment, Words, metadata

client = Table(
    "client",
    metadata,
    Column("id", ID, primary_key=True),
    Column("name", Text, nullable=False),
    Column("allowed_services", Words, nullable=False, server_default=FetchedValue()),
    Column("allowed_message_types", Words, nullable=False, server_default=FetchedValue()),
    Column("rate_limits", Json, nullable=False, server_default=FetchedValue()),
    Column("max_payload_bytes", Integer),
    Column("expires_at", Moment),
    Column("status", Text, nullable=False, server_default=FetchedValue()),
    Column("metadata", Json, nullable=False, server_default=FetchedValue()),
    Column("etag", Integer, nullable=False, server_default=FetchedValue()),
    Column("created_at", Moment, nullable=False, server_default=FetchedValue()),
    Column("updated_at", Moment, nullable=False, server_default=FetchedValue()),
)
client_key = Table(
    "client_key",
    metadata,
    Column("id", Text, primary_key=True),
    Column("client_id", ID, nullable=False),
    Column("hash", LargeBinary, nullable=False),
    Column("created_at", Moment, nullable=False, server_default=FetchedValue()),
    Column("expires_at", Moment),
)
quota = Table(
    "quota",
    metadata,
    Column("client_id", ID, primary_key=True),
    Column("seconds", Integer, primary_key=True),
    Column("starts_at", Moment, primary_key=True),
    Column("used", Integer, nullable=False),
)
client_usage = Table(
    "client_usage",
    metadata,
    Column("client_id", ID, primary_key=True),
    Column("hour", Moment, primary_key=True),
    Column("rejected", BigInteger, nullable=False, server_default=FetchedValue()),
)
