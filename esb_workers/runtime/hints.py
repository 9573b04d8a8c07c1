"""Word by Redis's PUBLISH that a row is there: a hint that saves a bell and a look; nobody relies on it.

It costs a quarter of what PostgreSQL's NOTIFY does, which signals every process that listens to anything in the
database [measured at 200 messages a second: some 90 µs of CPU each, and 280 less than with NOTIFY]. Where the broker is
no Redis, or is known to be away, `store.notices` is there instead; and what is lost on the way is made good by the bell
and by the poll.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import Any, Final, get_args

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
#: Words taken in at a time; who listens has something to do besides.
MOST: Final = 256


def _connection(broker_url: str) -> Any:
    """A connection that is not open yet; raises whatever redis-py makes of the URL."""
    pool = redis_urls.connections(broker_url, timeout=TIMEOUT, connect_timeout=CONNECT_TIMEOUT)
    return pool.make_connection()


def _tell(what: str, error: Exception, *, warned: bool) -> bool:
    """Log it, loudly once if it will not pass by itself; whether that has been done by now."""
    passing = isinstance(error, redis.ConnectionError | redis.TimeoutError)
    log.log(logging.DEBUG if passing or warned else logging.WARNING, "%s: %s", what, error)
    return warned or not passing


def _name(channel: Channel, connection: Any) -> str:
    """Channels are a whole server's: two buses may share it, each in a database of its own."""
    return f"{channel}:{connection.db}"


class Voice:
    """Says that there are rows. One a process; safe for threads."""

    def __init__(self, broker_url: str) -> None:
        self._url = broker_url
        #: Whether there is a use for a connection: somebody has something to say, and the broker is a Redis.
        self._wanted = False
        self._closed = threading.Event()
        if not broker_url.startswith(redis_urls.SCHEMES):
            self._closed.set()
        self._connection: Any = None
        self._said: dict[Channel, Any] = {}  # ready to be sent, by channel
        self._lock = threading.Lock()
        self._not_before = 0.0
        self._warned = False

    def say(self, channel: Channel) -> bool:
        """Say it on this channel; False if it could not be said."""
        self._wanted = True
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
            connection.send_packed_command(self._said[channel], check_health=False)
            return True
        except redis.RedisError as error:
            log.debug("no word can be given on %s for now: %s", channel, error)
            self._hush()  # redis-py would connect it anew by itself, while a sender waits
            return False

    def hush(self) -> None:
        """The server is known to be away: what is said to it would lie in buffers, and nobody would hear it."""
        with self._lock:
            self._hush()

    def _hush(self) -> None:
        connection, self._connection = self._connection, None
        self._not_before = time.monotonic() + PAUSE
        if connection is not None:
            connection.disconnect()

    def ensure(self) -> None:
        """Connect, if that is needed and was not tried a moment ago. May take a while; never raises."""
        needed = self._wanted and self._connection is None and not self._closed.is_set()
        if not needed or time.monotonic() < self._not_before:
            return
        self._not_before = time.monotonic() + PAUSE
        connection: Any = None
        try:
            connection = _connection(self._url)
            connection.connect()
            self._try_out(connection)
        except Exception as error:  # also of a URL, or of rights, that only kombu gets along with
            self._warned = _tell("no word can be given over Redis, so NOTIFY is used", error, warned=self._warned)
            if connection is not None:
                connection.disconnect()
            return
        with self._lock:
            if self._closed.is_set():
                connection.disconnect()
            else:
                self._connection = connection

    def _try_out(self, connection: Any) -> None:
        """Whether all can be said; from then on nobody has to read answers."""
        for channel in get_args(Channel):
            words = self._said[channel] = connection.pack_command("PUBLISH", _name(channel, connection), "")
            connection.send_packed_command(words, check_health=False)
            connection.read_response()
        connection.send_command("CLIENT", "REPLY", "ON", check_health=False)
        connection.read_response()
        connection.send_command("CLIENT", "REPLY", "OFF", check_health=False)

    def close(self) -> None:
        """Say nothing more."""
        with self._lock:
            self._closed.set()
            self._hush()


class Ears:
    """Hears one channel. One thread asks for what it has heard; another one connects, for that may take a while."""

    def __init__(self, broker_url: str, channel: Channel | None, connected: Callable[[], None]) -> None:
        """`channel`: None hears nothing. `connected` is told of a connection that is new: what was said before it
        has not been heard.
        """
        self._url = broker_url
        self._channel = channel
        self._connected = connected
        self._connection: Any = None
        self._closed = threading.Event()
        self._deaf = threading.Event()
        self._deaf.set()

    def open(self) -> None:
        """Listen from now on."""
        if self._url.startswith(redis_urls.SCHEMES) and self._channel is not None:
            thread = threading.Thread(target=self._listen, args=(self._channel,), name="ears", daemon=True)
            thread.start()

    def close(self) -> None:
        """Listen no more. Who asks for what is heard hangs up when he has asked for the last time."""
        self._closed.set()
        self._deaf.set()

    def hang_up(self) -> None:
        """The connection is of no use any more. By the thread that waits for it alone."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.disconnect()
            self._deaf.set()

    def fileno(self) -> int:
        """What is readable when there is something to be heard."""
        # redis-py has no way to wait for its socket together with anything else.
        sock = getattr(self._connection, "_sock", None)
        return NOTHING if sock is None else int(sock.fileno())

    def heard(self) -> bool:
        """Take in what has come, or a part of it if that is much; whether anything had.

        By the thread that waits for it alone.
        """
        connection = self._connection
        if connection is None:
            return False
        heard = 0
        try:
            while heard < MOST and connection.can_read():
                connection.read_response()
                heard += 1
        except Exception as error:  # whatever it is: with what is left of the connection nothing is heard
            log.debug("nothing is heard on %s for now: %s", self._channel, error)
            self.hang_up()
        return heard > 0

    def _listen(self, channel: Channel) -> None:
        warned = False
        while not self._closed.is_set():
            self._deaf.wait()
            if self._closed.is_set():
                break
            try:
                self._connect(channel)
            except Exception as error:  # without this thread nothing would ever be heard again
                warned = _tell("nothing can be heard over Redis", error, warned=warned)
            time.sleep(PAUSE)  # also after it went well: a server may take everybody in and send all away at once

    def _connect(self, channel: Channel) -> None:
        connection = _connection(self._url)
        try:
            connection.connect()
            connection.send_command("SUBSCRIBE", _name(channel, connection), check_health=False)
            connection.read_response()
        except BaseException:
            connection.disconnect()
            raise
        if self._closed.is_set():  # meanwhile: whom it was for will not look again
            connection.disconnect()
            return
        self._deaf.clear()
        self._connection = connection
        self._connected()
