"""Services: their instances, how they are, and their keys."""

from __future__ import annotations

from sqlalchemy import BigInteger, Boolean, Column, FetchedValue, Integer, LargeBinary, Table, Text

from esb_workers.store.tables.columns import ID, Json, Moment, Words, metadata

service = Table(
    "service",
    metadata,
    Column("id", ID, primary_key=True),
    Column("name", Text, nullable=False),
    Column("version", Text, nullable=False),
    Column("endpoint", Text, nullable=False),
    Column("health_check", Json),
    Column("weight", Integer, nullable=False, server_default=FetchedValue()),
    Column("tags", Words, nullable=False, server_default=FetchedValue()),
    Column("metadata", Json, nullable=False, server_default=FetchedValue()),
    Column("delivery", Json, nullable=False, server_default=FetchedValue()),
    Column("status", Text, nullable=False, server_default=FetchedValue()),
    Column("secret", Text),
    Column("old_secret", Text),
    Column("old_secret_until", Moment),
    Column("password", Text),
    Column("etag", Integer, nullable=False, server_default=FetchedValue()),
    Column("created_at", Moment, nullable=False, server_default=FetchedValue()),
    Column("updated_at", Moment, nullable=False, server_default=FetchedValue()),
)
service_state = Table(
    "service_state",
    metadata,
    Column("service_id", ID, primary_key=True),
    Column("health", Text, nullable=False, server_default=FetchedValue()),
    Column("health_changed_at", Moment),
    Column("last_check", Json),
    Column("successes", Integer, nullable=False, server_default=FetchedValue()),
    Column("failures", Integer, nullable=False, server_default=FetchedValue()),
    Column("heartbeat_at", Moment),
    Column("circuit", Text, nullable=False, server_default=FetchedValue()),
    Column("circuit_until", Moment, nullable=False, server_default=FetchedValue()),
    Column("circuit_opens", Integer, nullable=False, server_default=FetchedValue()),
    Column("circuit_epoch", BigInteger, nullable=False, server_default=FetchedValue()),
    Column("probe_until", Moment, nullable=False, server_default=FetchedValue()),
    Column("circuit_changed_at", Moment),
)
circuit_tally = Table(
    "circuit_tally",
    metadata,
    Column("service_id", ID, nullable=False),
    Column("at", Moment, nullable=False, server_default=FetchedValue()),
    Column("ok", Integer, nullable=False),
    Column("failed", Integer, nullable=False),
    Column("tail", Integer, nullable=False),
)
health_check = Table(
    "health_check",
    metadata,
    Column("id", ID, primary_key=True),
    Column("service_id", ID, nullable=False),
    Column("at", Moment, nullable=False, server_default=FetchedValue()),
    Column("ok", Boolean, nullable=False),
    Column("latency_ms", Integer),
    Column("status_code", Integer),
    Column("error", Text),
    Column("health", Text, nullable=False),
    Column("changed", Boolean, nullable=False, server_default=FetchedValue()),
)
service_key = Table(
    "service_key",
    metadata,
    Column("id", Text, primary_key=True),
    Column("service_id", ID, nullable=False),
    Column("hash", LargeBinary, nullable=False),
    Column("created_at", Moment, nullable=False, server_default=FetchedValue()),
    Column("expires_at", Moment),
    Column("scope", Text, nullable=False, server_default=FetchedValue()),
)
