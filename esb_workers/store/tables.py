"""The tables as SQLAlchemy Core sees them; `schema.sql` is the truth and says what each is for.

A test holds the two together: names, types, nullability, keys and defaults.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import (
    ARRAY,
    BigInteger,
    Boolean,
    Column,
    DateTime,
    FetchedValue,
    Float,
    Identity,
    Integer,
    LargeBinary,
    MetaData,
    SmallInteger,
    Table,
    Text,
    Uuid,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.types import UserDefinedType

ID = Uuid(as_uuid=False)
Moment = DateTime(timezone=True)
Words = ARRAY(Text)
#: None is SQL's null, not JSON's: `health_check is null` must mean that there is none.
Json = JSONB(none_as_null=True)


class Letter(UserDefinedType[str]):
    """PostgreSQL's one-byte type `"char"`."""

    cache_ok = True

    def get_col_spec(self, **_: Any) -> str:
        return '"char"'


metadata = MetaData()

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
