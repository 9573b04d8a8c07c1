"""Partitions: made ahead, dropped when their time has passed."""

from __future__ import annotations

from esb_workers.store.engine import Cursor


def make_partitions(cursor: Cursor, weeks_ahead: int) -> int:
    """Make the weekly partitions up to `weeks_ahead`; how many were new."""
    cursor.execute("select esb_partitions(%s)", (weeks_ahead,))
    return int(cursor.fetchone()[0])  # type: ignore[index]


def drop_partitions(cursor: Cursor, days: float) -> list[str]:
    """Drop history that ended more than `days` ago; the names of what was dropped."""
    cursor.execute("select * from esb_retire(%s)", (days,))
    return [name for (name,) in cursor.fetchall()]


def delete_executions(cursor: Cursor, days: float, limit: int = 1000) -> int:
    """Delete a chunk of executions that ended more than `days` ago; how many."""
    cursor.execute("select esb_retire_executions(%s, %s)", (days, limit))
    return int(cursor.fetchone()[0])  # type: ignore[index]
