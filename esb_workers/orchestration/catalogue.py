"""The step types that definitions may name: those installed here, and those that workers of queues have registered."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

from esb_workers.errors import SettingsError
from esb_workers.orchestration.steps import step_types
from esb_workers.orchestration.steps.base import StepType
from esb_workers.orchestration.steps.schema import SchemaStep, remote
from esb_workers.store import step_queues
from esb_workers.store.engine import Database
from esb_workers.store.json import dumps


def known_types(database: Database) -> Mapping[str, StepType]:
    """Every step type there is now; what is installed here wins."""
    with database.cursor() as cursor:
        rows = step_queues.types(cursor)
    found: dict[str, StepType] = {}
    for name, queue, schema in rows:
        if (kind := remote(name, orjson.loads(schema), queue)) is not None:
            found[name] = kind
    return {**found, **step_types()}


def serve(database: Database, queue: str) -> step_queues.StepQueue:
    """Announce the types of this queue that are installed here. Raises SettingsError if there are none."""
    mine = {name: kind for name, kind in step_types().items() if kind.queue == queue}
    if not mine:
        raise SettingsError(f"no installed package brings a step type for the queue {queue!r}")
    with database.raw_transaction() as cursor:
        for name, kind in sorted(mine.items()):
            step_queues.announce(cursor, name, queue, dumps(_schema(kind)))
        found = step_queues.named(cursor, queue)
    assert found is not None  # announcing has made it
    return found


def _schema(kind: StepType) -> dict[str, Any]:
    return kind.schema if isinstance(kind, SchemaStep) else kind.Config.model_json_schema(by_alias=True)
