"""Messages as they were accepted, and as they ended."""

from __future__ import annotations

from sqlalchemy import Column, FetchedValue, Integer, LargeBinary, SmallInteger, Table, Text

from esb_workers.store.tables.columns import ID, Json, Moment, metadata

message = Table(
    "message",
    metadata,
    Column("id", ID, primary_key=True),
    Column("client_id", ID),
    Column("external_id", Text),
    Column("source", Text, nullable=False),
    Column("type", Text, nullable=False),
    Column("correlation_id", Text, nullable=False),
    Column("ordering_key", Text),
    Column("priority", SmallInteger, nullable=False, server_default=FetchedValue()),
    Column("deliver_at", Moment),
    Column("expires_at", Moment),
    Column("reply_to", Text),
    Column("traceparent", Text),
    Column("headers", Text, nullable=False, server_default=FetchedValue()),
    Column("payload", Text),
    Column("replay_of", ID),
    Column("created_at", Moment, nullable=False, server_default=FetchedValue()),
    Column("redacted_at", Moment),
)
message_end = Table(
    "message_end",
    metadata,
    Column("message_id", ID, primary_key=True),
    Column("status", Text, nullable=False),
    Column("reason", Text),
    Column("at", Moment, nullable=False, server_default=FetchedValue()),
)
message_warning = Table(
    "message_warning",
    metadata,
    Column("message_id", ID, primary_key=True),
    Column("type", Text, nullable=False),
    Column("version", Integer, nullable=False),
    Column("faults", Json, nullable=False),
    Column("at", Moment, nullable=False, server_default=FetchedValue()),
)
form = Table(
    "form",
    metadata,
    Column("delivery_id", ID, primary_key=True),
    Column("payload", Text, nullable=False),
    Column("headers", Text, nullable=False),
)
idempotency = Table(
    "idempotency",
    metadata,
    Column("scope", Text, primary_key=True),
    Column("key", Text, primary_key=True),
    Column("hash", LargeBinary, nullable=False),
    Column("resource_id", ID),
    Column("status", SmallInteger),
    Column("answer", Text),
    Column("expires_at", Moment, nullable=False),
)
