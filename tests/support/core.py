"""Rows of the core, as tests put them there."""

from __future__ import annotations

from typing import Any

from esb_workers.store import lanes, workers
from esb_workers.store.engine import Cursor
from esb_workers.store.ids import new_id
from esb_workers.store.jobs import Claim

DELIVERY = 2

LEASE = 15.0  # seconds


def open_lane(cursor: Cursor, name: str, **limits: Any) -> int:
    lane = lanes.lane_id(cursor, DELIVERY, name)
    cursor.execute(
        "update lane set gate = null, gate_until = '-infinity', hard = %s, max_concurrency = %s, rate = %s, burst = %s where id = %s",
        (bool(limits), limits.get("max_concurrency"), limits.get("rate"), limits.get("burst", 1), lane),
    )
    return lane


def submit(cursor: Cursor, lane: int, okey: str | None = None) -> str:
    job = new_id()
    cursor.execute(
        "insert into job (id, pool, lane_id, okey, state, message_id) values (%s, %s, %s, %s, %s, %s)",
        (job, DELIVERY, lane, okey, "q" if okey else "r", new_id()),
    )
    return job


def new_worker(cursor: Cursor) -> int:
    return workers.register(cursor, DELIVERY, "here", 1, "0", 60)


def result(claim: Claim, outcome: str, **extra: Any) -> dict[str, Any]:
    return {"id": claim.id, "attempt": claim.attempt, "o": outcome, "detail": {}, **extra}


def kill(cursor: Cursor, worker: int) -> None:
    """As seen by the database when a process dies: its heartbeat runs out."""
    cursor.execute("update worker set dead_at = now() where id = %s", (worker,))
