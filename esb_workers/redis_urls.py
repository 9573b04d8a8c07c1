"""One URL, two libraries: a Redis as kombu's URLs name it, reached by redis-py."""

from __future__ import annotations

from typing import Any, Final

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

SCHEMES: Final = ("redis://", "rediss://", "redis+socket://")


def connections(url: str, *, timeout: float, connect_timeout: float, **options: Any) -> redis.ConnectionPool:
    """Connections to the Redis of such a URL that never try anything twice. `timeout`: for each answer,
    seconds.

    Raises ValueError.
    """
    return redis.ConnectionPool.from_url(
        url.replace("redis+socket://", "unix://", 1).replace("virtual_host=", "db=", 1),
        socket_timeout=timeout,
        socket_connect_timeout=connect_timeout,
        retry=Retry(NoBackoff(), 0),
        protocol=2,
        max_connections=1 << 16,
        **options,
    )
