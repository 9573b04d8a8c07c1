"""Secrets at rest: where they stand, and their re-encryption."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from esb_workers.store.engine import Database
from esb_workers.store.ids import new_id
from esb_workers.store.json import dumps

#: Columns that hold what `registry.secrets.Vault` has sealed, by table; each table has an `id`.
SEALED: Final = {
    "service": ("secret", "old_secret", "password"),
    "ingress": ("challenge_token",),
    "listener": ("password",),
}
#: A column with a list of objects, each of which holds one under `sealed`.
SEALED_LISTS: Final = {"ingress": "secrets"}


def reseal(database: Database, again: Callable[[str], str], actor: str) -> int:
    """Replace each stored secret by `again` of it, all or none, and note who did it; how many there were."""
    count = 0
    with database.raw_transaction() as cursor:
        for table, columns in SEALED.items():
            cursor.execute(f"select id, {', '.join(columns)} from {table} order by id for update")
            for row_id, *sealed in cursor.fetchall():
                fresh = [None if one is None else again(one) for one in sealed]
                assignments = ", ".join(f"{column} = %s" for column in columns)
                cursor.execute(f"update {table} set {assignments} where id = %s", (*fresh, row_id))
                count += sum(one is not None for one in fresh)
        for table, column in SEALED_LISTS.items():
            cursor.execute(f"select id, {column} from {table} order by id for update")
            for row_id, items in cursor.fetchall():
                fresh_items = [item | {"sealed": again(item["sealed"])} for item in items]
                cursor.execute(f"update {table} set {column} = %s where id = %s", (dumps(fresh_items), row_id))
                count += len(fresh_items)
        cursor.execute(
            "insert into audit (id, actor, action, resource, resource_id, detail)"
            " values (%s, %s, 'reseal', 'secrets', 'all', jsonb_build_object('secrets', %s))",
            (new_id(), actor, count),
        )
        cursor.execute("select esb_changed(topic) from revision order by topic")
    return count
