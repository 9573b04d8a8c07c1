"""All that is unfinished, and who works on it."""

from __future__ import annotations

from sqlalchemy import BigInteger, Boolean, Column, FetchedValue, Float, Identity, Integer, SmallInteger, Table, Text

from esb_workers.store.tables.columns import ID, Json, Letter, Moment, metadata

worker = Table(
    "worker",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    Column("pool", SmallInteger, nullable=False),
    Column("host", Text),
    Column("pid", Integer),
    Column("version", Text),
    Column("started_at", Moment, nullable=False, server_default=FetchedValue()),
    Column("beat_until", Moment, nullable=False, server_default=FetchedValue()),
    Column("dead_at", Moment),
)
lane = Table(
    "lane",
    metadata,
    Column("id", Integer, Identity(always=True), primary_key=True),
    Column("pool", SmallInteger, nullable=False),
    Column("name", Text, nullable=False),
    Column("hard", Boolean, nullable=False, server_default=FetchedValue()),
    Column("max_concurrency", Integer),
    Column("rate", Float),
    Column("burst", Integer, nullable=False, server_default=FetchedValue()),
    Column("catching_up_since", Moment),
    Column("gate", Text),
    Column("gate_until", Moment, nullable=False, server_default=FetchedValue()),
    Column("tat", Moment, nullable=False, server_default=FetchedValue()),
    Column("next_at", Moment, nullable=False, server_default=FetchedValue()),
)
permit = Table(
    "permit",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    Column("lane_id", Integer, nullable=False),
    Column("until", Moment, nullable=False),
)
job = Table(
    "job",
    metadata,
    Column("id", ID, primary_key=True),
    Column("pool", SmallInteger, nullable=False),
    Column("lane_id", Integer, nullable=False),
    Column("state", Letter, nullable=False, server_default=FetchedValue()),
    Column("run_at", Moment, nullable=False, server_default=FetchedValue()),
    Column("seq", BigInteger, Identity(always=True), nullable=False),
    Column("okey", Text),
    Column("attempt", Integer, nullable=False, server_default=FetchedValue()),
    Column("tries", SmallInteger, nullable=False, server_default=FetchedValue()),
    Column("losses", SmallInteger, nullable=False, server_default=FetchedValue()),
    Column("v", SmallInteger, nullable=False, server_default=FetchedValue()),
    Column("worker_id", BigInteger),
    Column("started_at", Moment),
    Column("lease_until", Moment),
    Column("message_id", ID),
    Column("route_id", ID),
    Column("created_at", Moment, nullable=False, server_default=FetchedValue()),
    Column("expires_at", Moment),
    Column("execution_id", ID),
    Column("parent_job", ID),
    Column("parent_path", Text),
    Column("inbox", Integer, nullable=False, server_default=FetchedValue()),
    Column("control", Letter),
    Column("cursor", Json),
)
