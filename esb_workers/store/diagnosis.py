"""What `esb doctor` asks of a database."""

from __future__ import annotations

from esb_workers.store.engine import Cursor


def server_version(cursor: Cursor) -> str:
    """`18.4`"""
    cursor.execute("show server_version")
    return str(cursor.fetchone()[0]).split()[0]  # type: ignore[index]


def clock(cursor: Cursor) -> float:
    """The server's time now, seconds since 1970."""
    cursor.execute("select extract(epoch from clock_timestamp())::float8")
    return float(cursor.fetchone()[0])  # type: ignore[index]
