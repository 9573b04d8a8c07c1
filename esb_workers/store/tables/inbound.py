"""Ways in beside the API: inbound webhooks and listeners."""

from __future__ import annotations

from sqlalchemy import BigInteger, Boolean, Column, FetchedValue, Integer, LargeBinary, SmallInteger, Table, Text

from esb_workers.store.tables.columns import ID, Json, Moment, metadata

ingress = Table(
    "ingress",
    metadata,
    Column("id", ID, primary_key=True),
    Column("name", Text, nullable=False),
    Column("enabled", Boolean, nullable=False, server_default=FetchedValue()),
    Column("body", Json, nullable=False),
    Column("secrets", Json, nullable=False, server_default=FetchedValue()),
    Column("challenge_token", Text),
    Column("etag", Integer, nullable=False, server_default=FetchedValue()),
    Column("created_at", Moment, nullable=False, server_default=FetchedValue()),
    Column("updated_at", Moment, nullable=False, server_default=FetchedValue()),
)
listener = Table(
    "listener",
    metadata,
    Column("id", ID, primary_key=True),
    Column("name", Text, nullable=False),
    Column("url", Text, nullable=False),
    Column("password", Text),
    Column("enabled", Boolean, nullable=False, server_default=FetchedValue()),
    Column("processes", Integer, nullable=False, server_default=FetchedValue()),
    Column("prefetch", Integer, nullable=False, server_default=FetchedValue()),
    Column("mapping", Json, nullable=False, server_default=FetchedValue()),
    Column("etag", Integer, nullable=False, server_default=FetchedValue()),
    Column("created_at", Moment, nullable=False, server_default=FetchedValue()),
    Column("updated_at", Moment, nullable=False, server_default=FetchedValue()),
)
listener_state = Table(
    "listener_state",
    metadata,
    Column("listener_id", ID, primary_key=True),
    Column("accepted", BigInteger, nullable=False, server_default=FetchedValue()),
    Column("duplicates", BigInteger, nullable=False, server_default=FetchedValue()),
    Column("parked", BigInteger, nullable=False, server_default=FetchedValue()),
    Column("last_message_at", Moment),
    Column("connected_at", Moment),
    Column("error", Text),
    Column("error_at", Moment),
)
parked_message = Table(
    "parked_message",
    metadata,
    Column("id", ID, primary_key=True),
    Column("listener_id", ID, nullable=False),
    Column("at", Moment, nullable=False, server_default=FetchedValue()),
    Column("reason", Text, nullable=False),
    Column("body", LargeBinary, nullable=False),
    Column("headers", Text, nullable=False),
    Column("properties", Text, nullable=False),
)
ingress_refusal = Table(
    "ingress_refusal",
    metadata,
    Column("id", ID, primary_key=True),
    Column("ingress_id", ID, nullable=False),
    Column("at", Moment, nullable=False),
    Column("status", SmallInteger, nullable=False),
    Column("code", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("method", Text, nullable=False),
    Column("remote", Text),
    Column("content_type", Text),
    Column("bytes", Integer),
    Column("headers", Json, nullable=False),
)
