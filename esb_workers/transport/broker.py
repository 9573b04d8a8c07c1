"""Whether the message broker answers."""

from __future__ import annotations

from kombu.connection import Connection


def answers(url: str, seconds: float = 0.5) -> bool:
    """Whether a connection to the broker at `url` comes about within about `seconds`."""
    options = {"socket_timeout": seconds, "socket_connect_timeout": seconds, "retry_on_timeout": False}
    transport_options = options if url.startswith(("redis", "rediss")) else {}
    try:
        with Connection(url, connect_timeout=seconds, transport_options=transport_options) as connection:
            connection.connect()
            if transport_options:  # a Redis transport connects only when it is first used
                connection.default_channel.client.ping()
            return bool(connection.connected)
    except Exception:  # each transport has its own errors, and all of them mean no
        return False
