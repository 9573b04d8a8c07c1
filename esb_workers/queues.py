"""Names of the pools. A pool is a Celery queue, a worker process, and a number in the tables."""

from __future__ import annotations

from typing import Final, Literal, get_args

PoolName = Literal["routing", "delivery", "orchestration", "health", "ingress"]

POOLS: Final[tuple[PoolName, ...]] = get_args(PoolName)
#: The number that stands for a pool in `job.pool`, `lane.pool` and `worker.pool`.
POOL_IDS: Final[dict[PoolName, int]] = {"routing": 1, "delivery": 2, "orchestration": 3, "health": 4, "ingress": 5}


def drain_task(pool: str) -> str:
    """The Celery task that wakes a pool: the doorbell. It carries nothing and is safe to lose or double."""
    return f"{pool}.drain"
