"""Lanes: what fairness, order, limits and holding are about."""

from __future__ import annotations

from esb_workers.store.engine import Cursor


def lane_id(cursor: Cursor, pool: int, name: str) -> int:
    """The lane of this name, made if it is new. Ids never change: callers may keep them."""
    cursor.execute("select esb_lane(%s::smallint, %s)", (pool, name))
    return int(cursor.fetchone()[0])  # type: ignore[index]


def caught_up(cursor: Cursor) -> int:
    """End the catching up of lanes whose held deliveries have gone out; how many."""
    cursor.execute("select esb_caught_up()")
    return int(cursor.fetchone()[0])  # type: ignore[index]


def names(cursor: Cursor, ids: list[int]) -> dict[int, str]:
    """Names of lanes by id."""
    cursor.execute("select id, name from lane where id = any(%s)", (ids,))
    return dict(cursor.fetchall())
