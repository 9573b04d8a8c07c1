"""Partitions: made ahead, dropped when their time has passed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from esb_workers.store.engine import Cursor

#: What is kept as long as one class of `ESB_RETENTION_…` says, by class.
MESSAGES: Final = ("message", "message_end", "message_warning", "delivery")
DETAILS: Final = ("attempt", "form")
EXECUTIONS: Final = ("event",)
CHECKS: Final = ("health_check",)
HISTORY: Final = (*MESSAGES, *DETAILS, *EXECUTIONS, *CHECKS)


def make_partitions(cursor: Cursor, weeks_ahead: int) -> int:
    """Make the weekly partitions up to `weeks_ahead`; how many were new."""
    cursor.execute("select esb_partitions(%s)", (weeks_ahead,))
    return int(cursor.fetchone()[0])  # type: ignore[index]


def drop_partitions(cursor: Cursor, tables: Sequence[str], days: float) -> list[str]:
    """Drop the history in these tables that ended more than `days` ago; the names of what was dropped."""
    cursor.execute("select * from esb_retire(%s, %s)", (list(tables), days))
    return [name for (name,) in cursor.fetchall()]


def delete_letters(cursor: Cursor, days: float) -> None:
    """Delete dead letters, ended replays and refusals that are older than `days`."""
    cursor.execute("select esb_retire_letters(%s)", (days,))


def delete_audit(cursor: Cursor, days: float, limit: int = 5000) -> int:
    """Delete a chunk of the audit trail that is older than `days`; how many."""
    cursor.execute("select esb_retire_audit(%s, %s)", (days, limit))
    return int(cursor.fetchone()[0])  # type: ignore[index]


def misplaced(cursor: Cursor) -> list[str]:
    """The default partitions that hold rows: partitions were not made in time, or a clock is far off."""
    return [table for table in HISTORY if _holds_rows(cursor, f"{table}_default")]


def _holds_rows(cursor: Cursor, table: str) -> bool:
    cursor.execute(f"select exists (select 1 from {table})")
    return bool(cursor.fetchone()[0])  # type: ignore[index]


def delete_executions(cursor: Cursor, days: float, limit: int = 1000) -> int:
    """Delete a chunk of executions that ended more than `days` ago; how many."""
    cursor.execute("select esb_retire_executions(%s, %s)", (days, limit))
    return int(cursor.fetchone()[0])  # type: ignore[index]
