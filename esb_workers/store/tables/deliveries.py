"""Deliveries that have ended, and dead letters that go out again."""

from __future__ import annotations

from sqlalchemy import BigInteger, Boolean, Column, FetchedValue, Float, Integer, Table, Text

from esb_workers.store.tables.columns import ID, Json, Moment, metadata

delivery = Table(
    "delivery",
    metadata,
    Column("id", ID, primary_key=True),
    Column("message_id", ID, nullable=False),
    Column("route_id", ID),
    Column("lane_id", Integer, nullable=False),
    Column("service_id", ID),
    Column("status", Text, nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("class", Text),
    Column("cursor", Json),
    Column("last", Json),
    Column("seq", BigInteger),
    Column("okey", Text),
    Column("created_at", Moment, nullable=False),
    Column("finished_at", Moment, nullable=False, server_default=FetchedValue()),
)
attempt = Table(
    "attempt",
    metadata,
    Column("delivery_id", ID, primary_key=True),
    Column("number", Integer, primary_key=True),
    Column("started_at", Moment),
    Column("finished_at", Moment, server_default=FetchedValue()),
    Column("worker_id", BigInteger),
    Column("outcome", Text, nullable=False),
    Column("detail", Json),
)
dead_letter = Table(
    "dead_letter",
    metadata,
    Column("delivery_id", ID, primary_key=True),
    Column("message_id", ID, nullable=False),
    Column("lane_id", Integer, nullable=False),
    Column("route_id", ID),
    Column("client_id", ID),
    Column("class", Text),
    Column("at", Moment, nullable=False, server_default=FetchedValue()),
    Column("offered", Boolean, nullable=False, server_default=FetchedValue()),
)
replay = Table(
    "replay",
    metadata,
    Column("id", ID, primary_key=True),
    Column("filter", Json, nullable=False),
    Column("rate", Float),
    Column("status", Text, nullable=False, server_default=FetchedValue()),
    Column("matched", Integer, nullable=False),
    Column("next_at", Moment, nullable=False, server_default=FetchedValue()),
    Column("created_at", Moment, nullable=False, server_default=FetchedValue()),
    Column("finished_at", Moment),
)
replay_item = Table(
    "replay_item",
    metadata,
    Column("replay_id", ID, primary_key=True),
    Column("delivery_id", ID, primary_key=True),
    Column("sent_at", Moment),
)
