"""Finding a workflow by id, or by name and version."""

from __future__ import annotations

from esb_workers.registry.versions import parse_version
from esb_workers.store import workflows
from esb_workers.store.engine import Cursor
from esb_workers.store.ids import as_id


def find_workflow(cursor: Cursor, workflow_id: str | None, name: str | None, version: str | None) -> str | None:
    """The id of a workflow. A name alone means the highest version that is no prerelease, if there is one."""
    if workflow_id is not None:
        known = as_id(workflow_id)
        row = workflows.get(cursor, known) if known else None
        return row.id if row else None
    found = dict(workflows.versions(cursor, name or ""))
    if version is not None:
        return found.get(version)
    return found[highest(list(found))] if found else None


def highest(versions: list[str]) -> str:
    """The highest version; prereleases only when there is nothing else."""
    ranked = sorted(versions, key=parse_version)
    stable = [version for version in ranked if not parse_version(version).prerelease]
    return (stable or ranked)[-1]
