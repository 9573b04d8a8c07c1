"""Workflows, the queues of their steps, and what starts them."""

from __future__ import annotations

from sqlalchemy import ARRAY, Boolean, Column, FetchedValue, Integer, SmallInteger, Table, Text

from esb_workers.store.tables.columns import ID, Moment, metadata

workflow = Table(
    "workflow",
    metadata,
    Column("id", ID, primary_key=True),
    Column("name", Text, nullable=False),
    Column("version", Text, nullable=False),
    Column("description", Text),
    Column("definition", Text, nullable=False),
    Column("lane_id", Integer, nullable=False),
    Column("created_at", Moment, nullable=False, server_default=FetchedValue()),
    Column("deleted_at", Moment),
)
step_queue = Table(
    "step_queue",
    metadata,
    Column("name", Text, primary_key=True),
    Column("pool", SmallInteger, nullable=False, server_default=FetchedValue()),
)
step_type = Table(
    "step_type",
    metadata,
    Column("name", Text, primary_key=True),
    Column("queue", Text, nullable=False),
    Column("schema", Text, nullable=False),
    Column("seen_at", Moment, nullable=False, server_default=FetchedValue()),
)
schedule = Table(
    "schedule",
    metadata,
    Column("id", ID, primary_key=True),
    Column("name", Text, nullable=False),
    Column("workflow_id", ID),
    Column("workflow_name", Text),
    Column("version", Text),
    Column("cron", Text, nullable=False),
    Column("timezone", Text, nullable=False, server_default=FetchedValue()),
    Column("input", Text, nullable=False, server_default=FetchedValue()),
    Column("catch_up", Text, nullable=False, server_default=FetchedValue()),
    Column("overlap", Text, nullable=False, server_default=FetchedValue()),
    Column("jitter", Integer, nullable=False, server_default=FetchedValue()),
    Column("start_at", Moment),
    Column("end_at", Moment),
    Column("enabled", Boolean, nullable=False, server_default=FetchedValue()),
    Column("next_at", Moment),
    Column("queued", ARRAY(Moment), nullable=False, server_default=FetchedValue()),
    Column("last_at", Moment),
    Column("last_outcome", Text),
    Column("last_run", ID),
    Column("etag", Integer, nullable=False, server_default=FetchedValue()),
    Column("created_at", Moment, nullable=False, server_default=FetchedValue()),
    Column("updated_at", Moment, nullable=False, server_default=FetchedValue()),
)
