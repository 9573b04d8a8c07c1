"""Runs: what has happened in them, and what is done to many."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    FetchedValue,
    Identity,
    Integer,
    LargeBinary,
    SmallInteger,
    Table,
    Text,
)

from esb_workers.store.tables.columns import ID, Json, Moment, Words, metadata

execution = Table(
    "execution",
    metadata,
    Column("id", ID, primary_key=True),
    Column("workflow_id", ID, nullable=False),
    Column("client_id", ID),
    Column("status", Text, nullable=False, server_default=FetchedValue()),
    Column("engine_v", SmallInteger, nullable=False, server_default=FetchedValue()),
    Column("business_key", Text),
    Column("correlation_id", Text, nullable=False),
    Column("traceparent", Text),
    Column("priority", SmallInteger, nullable=False, server_default=FetchedValue()),
    Column("parent_id", ID),
    Column("parent_job", ID),
    Column("input", Text, nullable=False, server_default=FetchedValue()),
    Column("context", Text),
    Column("output", Text),
    Column("error", Text),
    Column("error_class", Text),
    Column("fence", Integer, nullable=False, server_default=FetchedValue()),
    Column("reason", Text),
    Column("undo", Boolean, nullable=False, server_default=FetchedValue()),
    Column("skips", Words, nullable=False, server_default=FetchedValue()),
    Column("deadline", Moment),
    Column("paused_at", Moment),
    Column("limit_key", Text),
    Column("limit_n", Integer),
    Column("schedule_id", ID),
    Column("scheduled_for", Moment),
    Column("delivery_id", ID),
    Column("created_at", Moment, nullable=False, server_default=FetchedValue()),
    Column("started_at", Moment),
    Column("updated_at", Moment, nullable=False, server_default=FetchedValue()),
    Column("finished_at", Moment),
)
business_key = Table(
    "business_key",
    metadata,
    Column("workflow", Text, primary_key=True),
    Column("key", Text, primary_key=True),
    Column("execution_id", ID, nullable=False),
)
event = Table(
    "event",
    metadata,
    Column("execution_id", ID, primary_key=True),
    Column("job_id", ID, primary_key=True),
    Column("n", Integer, primary_key=True),
    Column("seq", BigInteger, nullable=False, server_default=FetchedValue()),
    Column("at", Moment, nullable=False, server_default=FetchedValue()),
    Column("type", Text, nullable=False),
    Column("path", Text),
    Column("visit", Integer),
    Column("iteration", Integer),
    Column("data", Text),
)
snapshot = Table(
    "snapshot",
    metadata,
    Column("job_id", ID, primary_key=True),
    Column("execution_id", ID, nullable=False),
    Column("n", Integer, nullable=False),
    Column("state", Text, nullable=False),
)
scope = Table(
    "scope",
    metadata,
    Column("job_id", ID, primary_key=True),
    Column("path", Text, primary_key=True),
    Column("execution_id", ID, nullable=False),
    Column("kids", Integer, nullable=False),
    Column("open", Integer, nullable=False),
    Column("need", Integer, nullable=False),
    Column("failed", Integer, nullable=False, server_default=FetchedValue()),
    Column("tolerated", Integer, nullable=False, server_default=FetchedValue()),
    Column("total", Integer),
    Column("next_i", Integer, nullable=False, server_default=FetchedValue()),
    Column("closed", Boolean, nullable=False, server_default=FetchedValue()),
    Column("seed", Text, nullable=False),
)
callback = Table(
    "callback",
    metadata,
    Column("hash", LargeBinary, primary_key=True),
    Column("execution_id", ID, nullable=False),
    Column("at", Moment, nullable=False, server_default=FetchedValue()),
)
signal = Table(
    "signal",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    Column("execution_id", ID, nullable=False),
    Column("name", Text, nullable=False),
    Column("payload", Text),
    Column("at", Moment, nullable=False, server_default=FetchedValue()),
    Column("taken_by", ID),
    Column("taken_for", Integer),
)
bulk = Table(
    "bulk",
    metadata,
    Column("id", ID, primary_key=True),
    Column("action", Text, nullable=False),
    Column("reason", Text),
    Column("compensate", Boolean, nullable=False, server_default=FetchedValue()),
    Column("filter", Json, nullable=False),
    Column("actor", Text, nullable=False),
    Column("status", Text, nullable=False, server_default=FetchedValue()),
    Column("matched", Integer, nullable=False),
    Column("created_at", Moment, nullable=False, server_default=FetchedValue()),
    Column("finished_at", Moment),
)
bulk_item = Table(
    "bulk_item",
    metadata,
    Column("bulk_id", ID, primary_key=True),
    Column("execution_id", ID, primary_key=True),
    Column("outcome", Text),
)
