"""One URL, two libraries: a Redis as kombu's URLs name it, reached by redis-py."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    import redis

SCHEMES: Final = ("redis://", "rediss://", "redis+socket://")

#: A connection whose other end is gone without a word is noticed within half a minute, also by who only listens.
_NOTICED: Final[dict[str, Any]] = {
    "socket_keepalive": True,
    "socket_keepalive_options": {
        socket.TCP_KEEPIDLE: 10,
        socket.TCP_KEEPINTVL: 5,
        socket.TCP_KEEPCNT: 3,
        socket.TCP_USER_TIMEOUT: 25_000,  # milliseconds
    },
}


def connections(url: str, *, timeout: float, connect_timeout: float) -> redis.ConnectionPool:
    """Connections to the Redis of such a URL that never try anything twice. `timeout`: for each answer, seconds.

    Raises ValueError; and so may making a connection of what the URL says that only kombu understands, with any error.
    """
    import redis  # here: most processes that read settings have no use for it
    from redis.backoff import NoBackoff
    from redis.retry import Retry

    return redis.ConnectionPool.from_url(
        url.replace("redis+socket://", "unix://", 1).replace("virtual_host=", "db=", 1),
        socket_timeout=timeout,
        socket_connect_timeout=connect_timeout,
        retry=Retry(NoBackoff(), 0),
        protocol=2,
        max_connections=1 << 16,
        **({} if url.startswith("redis+socket://") else _NOTICED),
    )
