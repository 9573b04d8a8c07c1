"""Workflow definitions: immutable rows, named by name and version."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple

import psycopg2

from esb_workers.store.engine import Cursor, is_unique_violation
from esb_workers.store.ids import new_id
from esb_workers.store.json import dumps

_COLUMNS = "w.id, w.name, w.version, w.description, w.definition, w.lane_id, w.created_at, w.deleted_at"


class WorkflowRow(NamedTuple):
    """One version of a workflow. `definition` is JSON text as it was sent."""

    id: str
    name: str
    version: str
    description: str | None
    definition: str
    lane_id: int
    created_at: datetime
    deleted_at: datetime | None


def insert(cursor: Cursor, row: Mapping[str, Any]) -> bool:
    """Add a version inside the caller's transaction; False if name and version are taken."""
    try:
        cursor.execute(
            "insert into workflow (id, name, version, description, definition, lane_id)"
            " values (%(id)s, %(name)s, %(version)s, %(description)s, %(definition)s, esb_lane(3::smallint, %(name)s))",
            row,
        )
    except psycopg2.Error as error:
        if is_unique_violation(error):
            return False
        raise
    cursor.execute("select esb_changed('workflows')")
    return True


def get(cursor: Cursor, workflow_id: str, *, deleted: bool = False) -> WorkflowRow | None:
    """One version by id."""
    cursor.execute(
        f"select {_COLUMNS} from workflow w where w.id = %s and (%s or w.deleted_at is null)", (workflow_id, deleted)
    )
    row = cursor.fetchone()
    return WorkflowRow(*row) if row else None


def versions(cursor: Cursor, name: str) -> list[tuple[str, str]]:
    """(version, id) of every version of a name."""
    cursor.execute("select version, id from workflow where name = %s and deleted_at is null", (name,))
    return list(cursor.fetchall())


def registered_services(cursor: Cursor, names: Sequence[str]) -> set[str]:
    """Those of these names that a service bears."""
    cursor.execute("select distinct name from service where name = any(%s)", (list(names),))
    return {name for (name,) in cursor.fetchall()}


def page(
    cursor: Cursor, *, limit: int, before: str | None = None, name: str | None = None, version: str | None = None
) -> list[WorkflowRow]:
    """Newest first, one more than `limit` so that the caller sees whether there is more."""
    cursor.execute(
        f"select {_COLUMNS} from workflow w where w.deleted_at is null"
        " and (%(before)s::uuid is null or w.id < %(before)s::uuid) and (%(name)s is null or w.name = %(name)s)"
        " and (%(version)s is null or w.version = %(version)s) order by w.id desc limit %(limit)s",
        {"before": before, "name": name, "version": version, "limit": limit + 1},
    )
    return [WorkflowRow(*row) for row in cursor.fetchall()]


def delete(cursor: Cursor, workflow_id: str) -> str:
    """'gone', 'missing', or 'busy' while runs of it are open. The row stays, marked, for the runs that ended."""
    cursor.execute("select 1 from workflow where id = %s and deleted_at is null for update", (workflow_id,))
    if cursor.fetchone() is None:
        return "missing"
    cursor.execute(
        "select exists(select from execution where workflow_id = %s and status in ('open', 'paused'))", (workflow_id,)
    )
    if cursor.fetchone()[0]:  # type: ignore[index]
        return "busy"
    cursor.execute("update workflow set deleted_at = now() where id = %s", (workflow_id,))
    cursor.execute("select esb_changed('workflows')")
    return "gone"


def note(
    cursor: Cursor,
    actor: str,
    action: str,
    resource: str,
    resource_id: str,
    name: str | None,
    detail: Mapping[str, Any] | None,
) -> None:
    """Record who did what, in the caller's transaction."""
    cursor.execute(
        "insert into audit (id, actor, action, resource, resource_id, name, detail) values (%s, %s, %s, %s, %s, %s, %s::jsonb)",
        (new_id(), actor, action, resource, resource_id, name, dumps(dict(detail)) if detail else None),
    )
