"""Word by Redis's PUBLISH that a row is there: a hint that saves a bell and a look; nobody relies on it.

It costs a tenth of what PostgreSQL's NOTIFY does, which signals every process that listens to anything in the database
[measured: 40 µs of CPU against 400]. Where the broker is no Redis, or is away, `store.notices` is there instead; and
what is lost on the way is made good by the bell and by the poll.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import Any, Final

import redis

from esb_workers import redis_urls
from esb_workers.runtime.wakeup import NOTHING
from esb_workers.store.notices import Channel

log = logging.getLogger(__name__)

#: A Redis that does not take in a word within this is not spoken to for a while, seconds: a sender waits for it.
TIMEOUT: Final = 0.1
#: The same for a connection, seconds: nobody waits for that.
CONNECT_TIMEOUT: Final = 1.0
#: Between tries to connect, seconds.
PAUSE: Final = 1.0


def _pool(broker_url: str, **options: Any) -> redis.ConnectionPool | None:
    """None if the broker is no Redis."""
    if not broker_url.startswith(redis_urls.SCHEMES):
        return None
    try:
        return redis_urls.connections(broker_url, timeout=TIMEOUT, connect_timeout=CONNECT_TIMEOUT, **options)
    except ValueError:  # such as several servers in one URL, which kombu alone understands
        return None


def _name(channel: Channel, connection: Any) -> str:
    """Channels are a whole server's: two buses may share it, each in a database of its own."""
    return f"{channel}:{connection.db}"


class Voice:
    """Says that there are rows. One a process; safe for threads."""

    def __init__(self, broker_url: str) -> None:
        self._pool = _pool(broker_url)
        self._connection: Any = None
        self._said: dict[Channel, Any] = {}  # ready to be sent, by channel
        self._lock = threading.Lock()
        self._not_before = 0.0

    def say(self, channel: Channel) -> bool:
        """Say it on this channel; False if it could not be said."""
        # Who waited here for another could not know whether that one's word goes out after his own commit.
        if self._connection is None or not self._lock.acquire(blocking=False):
            return False
        try:
            return self._say(channel)
        finally:
            self._lock.release()

    def _say(self, channel: Channel) -> bool:
        connection = self._connection
        if connection is None:
            return False
        try:
            words = self._said.get(channel)
            if words is None:
                words = self._said[channel] = connection.pack_command("PUBLISH", _name(channel, connection), "")
            connection.send_packed_command(words, check_health=False)
            return True
        except redis.RedisError as error:
            log.debug("no word can be given on %s for now: %s", channel, error)
            self._connection = None  # redis-py would connect it anew by itself, while a sender waits
            self._not_before = time.monotonic() + PAUSE
            return False

    def ensure(self) -> None:
        """Connect, if that is needed and was not tried a moment ago. May take a while; never raises."""
        if self._pool is None or self._connection is not None or time.monotonic() < self._not_before:
            return
        self._not_before = time.monotonic() + PAUSE
        connection: Any = self._pool.make_connection()
        try:
            connection.connect()
            connection.send_command("CLIENT", "REPLY", "OFF", check_health=False)  # or somebody had to read the answers
        except redis.RedisError as error:
            log.debug("no word can be given for now: %s", error)
            connection.disconnect()
            return
        self._connection = connection

    def close(self) -> None:
        """Say nothing more."""
        with self._lock:
            connection, self._connection, self._pool = self._connection, None, None
            if connection is not None:
                connection.disconnect()


class Ears:
    """Hears one channel. One thread asks for what it has heard; another one connects, for that may take a while."""

    def __init__(self, broker_url: str, channel: Channel | None, connected: Callable[[], None]) -> None:
        """`channel`: None hears nothing. `connected` is told of a connection that is new: what was said before it
        has not been heard.
        """
        self._pool = _pool(
            broker_url,
            # A dead peer would be listened to for ever. Options of TCP alone: a socket of this machine knows no such.
            **({} if broker_url.startswith("redis+socket") else {"socket_keepalive": True}),
        )
        self._channel = channel
        self._connected = connected
        self._connection: Any = None
        self._closed = False
        self._deaf = threading.Event()
        self._deaf.set()

    def open(self) -> None:
        """Listen from now on."""
        if self._pool is not None and self._channel is not None:
            thread = threading.Thread(target=self._listen, args=(self._channel,), name="ears", daemon=True)
            thread.start()

    def close(self) -> None:
        """Listen no more."""
        self._closed = True
        self._deaf.set()

    def fileno(self) -> int:
        """What is readable when there is something to be heard."""
        connection = self._connection
        # redis-py has no way to wait for its socket together with anything else.
        return NOTHING if connection is None else connection._sock.fileno()  # noqa: SLF001

    def heard(self) -> bool:
        """Take in what has come; whether anything had. By the thread that waits for it alone."""
        connection = self._connection
        if connection is None:
            return False
        heard = False
        try:
            while connection.can_read():
                connection.read_response()
                heard = True
        except redis.RedisError as error:
            log.debug("nothing is heard on %s for now: %s", self._channel, error)
            self._connection = None
            connection.disconnect()
            self._deaf.set()
        return heard

    def _listen(self, channel: Channel) -> None:
        while not self._closed:
            self._deaf.wait()
            if not self._closed and not self._connect(channel):
                time.sleep(PAUSE)

    def _connect(self, channel: Channel) -> bool:
        assert self._pool is not None
        connection: Any = self._pool.make_connection()
        try:
            connection.connect()
            connection.send_command("SUBSCRIBE", _name(channel, connection), check_health=False)
            connection.read_response()
        except Exception as error:  # without this thread nothing would ever be heard again
            log.debug("nothing is heard on %s for now: %s", channel, error)
            connection.disconnect()
            return False
        self._deaf.clear()
        self._connection = connection
        self._connected()
        return True
