"""One URL, two libraries: a Redis as kombu's URLs name it, reached by redis-py."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    import redis

SCHEMES: Final = ("redis://", "rediss://", "redis+socket://")


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
        **({} if url.startswith("redis+socket://") else _noticed()),
    )


def _noticed() -> dict[str, Any]:
    """A connection whose other end is gone without a word is noticed within half a minute, also by who only listens."""
    # Asked for here: the command line, which reads settings, also runs where sockets know no such options.
    idle, interval, count = socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT
    options = {idle: 10, interval: 5, count: 3, socket.TCP_USER_TIMEOUT: 25_000}  # seconds; the last in milliseconds
    return {"socket_keepalive": True, "socket_keepalive_options": options}
