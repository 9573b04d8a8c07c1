"""The tables as SQLAlchemy Core sees them; `schema.sql` is the truth and says what each is for.

A test holds the two together: names, types, nullability, keys and defaults.
"""

from __future__ import annotations

from esb_workers.store.tables.clients import client, client_key, client_usage, quota
from esb_workers.store.tables.columns import Words, metadata
from esb_workers.store.tables.deliveries import attempt, dead_letter, delivery, replay, replay_item
from esb_workers.store.tables.executions import (
    bulk,
    bulk_item,
    business_key,
    callback,
    event,
    execution,
    scope,
    signal,
    snapshot,
)
from esb_workers.store.tables.inbound import ingress, ingress_refusal, listener, listener_state, parked_message
from esb_workers.store.tables.jobs import job, lane, permit, worker
from esb_workers.store.tables.messages import form, idempotency, message, message_end, message_warning
from esb_workers.store.tables.routes import lookup_table, message_type, message_type_version, route
from esb_workers.store.tables.services import circuit_tally, health_check, service, service_key, service_state
from esb_workers.store.tables.system import audit, counter, revision, schema_version
from esb_workers.store.tables.workflows import schedule, step_queue, step_type, workflow

__all__ = [
    "Words",
    "attempt",
    "audit",
    "bulk",
    "bulk_item",
    "business_key",
    "callback",
    "circuit_tally",
    "client",
    "client_key",
    "client_usage",
    "counter",
    "dead_letter",
    "delivery",
    "event",
    "execution",
    "form",
    "health_check",
    "idempotency",
    "ingress",
    "ingress_refusal",
    "job",
    "lane",
    "listener",
    "listener_state",
    "lookup_table",
    "message",
    "message_end",
    "message_type",
    "message_type_version",
    "message_warning",
    "metadata",
    "parked_message",
    "permit",
    "quota",
    "replay",
    "replay_item",
    "revision",
    "route",
    "schedule",
    "schema_version",
    "scope",
    "service",
    "service_key",
    "service_state",
    "signal",
    "snapshot",
    "step_queue",
    "step_type",
    "worker",
    "workflow",
]
