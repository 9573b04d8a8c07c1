"""Figures that only ever rise, added up over all processes and their lives."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from esb_workers.store.engine import Cursor


class CounterRow(NamedTuple):
    """A figure of a pool."""

    name: str
    pool: int
    n: int


def add(cursor: Cursor, pool: int, counts: Mapping[str, int]) -> None:
    """Add to the figures of a pool."""
    cursor.execute(
        "insert into counter (name, pool, n) select name, %s, n from unnest(%s::text[], %s::bigint[]) x(name, n) order by name"
        " on conflict (name, pool) do update set n = counter.n + excluded.n",
        (pool, list(counts), list(counts.values())),
    )


def all_of(cursor: Cursor) -> list[CounterRow]:
    """Every figure."""
    cursor.execute("select name, pool, n from counter")
    return [CounterRow(*row) for row in cursor.fetchall()]
