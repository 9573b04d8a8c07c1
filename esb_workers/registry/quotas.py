"""Quotas: exact fixed windows per client, aligned to the UTC second, minute, hour and day.

What was accepted stands in the history, so the counters are only a faster copy of it: one hash per client in
Redis, read and raised by one script, so that no two processes can both take the last place. A counter that is
missing, because it expired or because Redis lost its memory, is made anew from the history first. Without
Redis, or while it is away, the same counters are kept in PostgreSQL.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any, Final

import redis

from esb_workers import redis_urls
from esb_workers.errors import QuotaExceeded
from esb_workers.registry.counting import Counter, CounterAway, Limit, RateLimit, Refused, Taken
from esb_workers.registry.leases import LeasedCounter
from esb_workers.store import quotas as store
from esb_workers.store.engine import Database

__all__ = ["Limit", "Quotas", "RateLimit", "Taken", "limits_of", "nearest_to_empty"]

log = logging.getLogger("esb.quotas")

#: A window's name in `rateLimits`, and its length in seconds.
WINDOWS: Final[Mapping[str, int]] = {
    "requestsPerSecond": 1,
    "requestsPerMinute": 60,
    "requestsPerHour": 3600,
    "requestsPerDay": 86400,
}
#: How long a limiter that failed is left alone, seconds.
PAUSE: Final = 1.0


def limits_of(rate_limits: Mapping[str, int]) -> tuple[Limit, ...]:
    """A client's `rateLimits`, shortest window first."""
    return tuple(Limit(seconds, rate_limits[name]) for name, seconds in WINDOWS.items() if name in rate_limits)


def nearest_to_empty(windows: Sequence[RateLimit]) -> RateLimit:
    """The one with the least left; of equals the one that lasts longest."""
    return min(windows, key=lambda window: (window.remaining, -window.reset))


class Quotas:
    """The quotas of all clients, as one process takes from them."""

    def __init__(self, database: Database, redis_url: str | None) -> None:
        self._database = DatabaseCounter(database)
        self._redis = LeasedCounter(RedisCounter(redis_url, database)) if redis_url else None
        self._redis_back_at = 0.0

    def take(self, client_id: str, limits: tuple[Limit, ...], places: int = 1) -> Taken | None:
        """Take `places`, all or none. None if the client has no limits. Raises QuotaExceeded."""
        if not limits:
            return None
        counter = self._counter()
        try:
            result = counter.take(client_id, limits, places)
        except CounterAway as error:
            self._suspend(error)
            result = self._database.take(client_id, limits, places)
        if isinstance(result, Refused):
            wait = max(1, result.nearest.reset)
            raise QuotaExceeded("The client's quota is used up.", retry_after=wait, rate_limit=result.nearest)
        return result

    def give_back(self, taken: Taken | None) -> None:
        """The request came to nothing. Never raises: a place lost is better than an error on top of an error."""
        if taken is None:
            return
        if taken.counter is not self._database and time.monotonic() < self._redis_back_at:
            return  # nobody waits for a dead server, for a place that ends with its window
        try:
            taken.counter.give_back(taken)
        except CounterAway as error:
            self._suspend(error)
        except Exception:
            log.warning("quota places could not be given back", extra={"client_id": taken.client_id}, exc_info=True)

    def windows(self, client_id: str, limits: tuple[Limit, ...]) -> list[RateLimit]:
        """Each window as it stands, in the order of `limits`."""
        if not limits:
            return []
        try:
            return self._counter().used(client_id, limits)
        except CounterAway as error:
            self._suspend(error)
            return self._database.used(client_id, limits)

    def close(self) -> None:
        """Close the connections to Redis."""
        if self._redis:
            self._redis.close()

    def _counter(self) -> Counter:
        return self._redis if self._redis and time.monotonic() >= self._redis_back_at else self._database

    def _suspend(self, error: Exception) -> None:
        # Requests must not each wait for the same dead server.
        self._redis_back_at = time.monotonic() + PAUSE
        log.warning("quotas are kept in PostgreSQL while Redis is away: %s", error)


class DatabaseCounter:
    """The windows as rows of PostgreSQL."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def take(self, client_id: str, limits: tuple[Limit, ...], places: int) -> Taken | Refused:
        """See Counter."""
        with self._database.raw_transaction() as cursor:
            at = store.now(cursor)
            windows = [_window(limit, at, store.lock(cursor, client_id, limit.seconds, at)) for limit in limits]
            full = [window for window in windows if window.remaining < places]
            if full:
                return Refused(max(full, key=lambda window: window.reset))
            store.add(cursor, client_id, at, [limit.seconds for limit in limits], places)
        left = [window._replace(remaining=window.remaining - places) for window in windows]
        return Taken(client_id, places, at, limits, nearest_to_empty(left), self)

    def give_back(self, taken: Taken) -> None:
        """See Counter."""
        with self._database.cursor() as cursor:
            store.add(cursor, taken.client_id, taken.at, [limit.seconds for limit in taken.limits], -taken.places)

    def used(self, client_id: str, limits: tuple[Limit, ...]) -> list[RateLimit]:
        """See Counter."""
        with self._database.cursor() as cursor:
            at = store.now(cursor)
            used = store.used(cursor, client_id, at, [limit.seconds for limit in limits])
        return [_window(limit, at, used.get(limit.seconds, 0)) for limit in limits]

    def close(self) -> None:
        """See Counter: the pool of connections is the database's."""


def _window(limit: Limit, at: int, used: int) -> RateLimit:
    return RateLimit(limit.most, max(0, limit.most - used), limit.seconds - at % limit.seconds)


#: KEYS[1]: a client's hash, for each window of s seconds: s = places used, "s:at" = start of the window.
#: ARGV: places (0 only looks; negative gives back), at (of the taking; 0: now), then per window s, limit, seed.
#: A window that is missing is answered as "seed" unless a seed is given (>= 0): then it starts with that.
_SCRIPT: Final = """
local now = tonumber(redis.call('TIME')[1])
local places, at = tonumber(ARGV[1]), tonumber(ARGV[2])
local used, fresh, full, unseeded = {}, {}, false, false
for i = 3, #ARGV, 3 do
  local s, limit, seed = tonumber(ARGV[i]), tonumber(ARGV[i + 1]), tonumber(ARGV[i + 2])
  local kept = redis.call('HMGET', KEYS[1], ARGV[i], ARGV[i] .. ':at')
  local start = now - now % s
  local n = 0
  if tonumber(kept[2]) == start then n = tonumber(kept[1])
  else
    fresh[i] = true
    if not kept[2] then
      if seed < 0 then unseeded = true else n = seed end
    end
  end
  used[i] = n
  if n + places > limit then full = true end
end
if unseeded then return {'seed', now} end
local longest = 0
local taking = places ~= 0 and (places < 0 or not full)
for i = 3, #ARGV, 3 do
  local s = tonumber(ARGV[i])
  local start = now - now % s
  if places > 0 and not full then used[i] = used[i] + places
  elseif places < 0 and at - at % s == start then used[i] = math.max(0, used[i] + places) end
  if taking or fresh[i] then redis.call('HSET', KEYS[1], ARGV[i], used[i], ARGV[i] .. ':at', start) end
  if s > longest then longest = s end
end
redis.call('EXPIRE', KEYS[1], longest * 2)
local answer = {full and 'full' or 'ok', now}
for i = 3, #ARGV, 3 do answer[#answer + 1] = used[i] end
return answer
"""


class RedisCounter:
    """The windows as a hash of Redis, with as many connections as threads that take at once."""

    def __init__(self, url: str, database: Database) -> None:
        self._pool = redis_urls.connections(url, timeout=0.1, connect_timeout=0.1)
        self._database = database
        self._idle: deque[Any] = deque()  # not by thread: threads end, and leave theirs behind
        self._digest = redis.Redis(connection_pool=self._pool).register_script(_SCRIPT).sha

    def take(self, client_id: str, limits: tuple[Limit, ...], places: int) -> Taken | Refused:
        """See Counter."""
        full, at, used = self._run(client_id, limits, places)
        windows = [_window(limit, at, count) for limit, count in zip(limits, used, strict=True)]
        if full:
            return Refused(max((w for w in windows if w.remaining < places), key=lambda window: window.reset))
        return Taken(client_id, places, at, limits, nearest_to_empty(windows), self)

    def give_back(self, taken: Taken) -> None:
        """See Counter."""
        self._run(taken.client_id, taken.limits, -taken.places, taken.at)

    def used(self, client_id: str, limits: tuple[Limit, ...]) -> list[RateLimit]:
        """See Counter."""
        _, at, used = self._run(client_id, limits, 0)
        return [_window(limit, at, count) for limit, count in zip(limits, used, strict=True)]

    def close(self) -> None:
        """Close every thread's connection."""
        self._pool.disconnect()

    def _run(
        self, client_id: str, limits: tuple[Limit, ...], places: int, at: int = 0
    ) -> tuple[bool, int, Sequence[int]]:
        seeds: Mapping[int, int] = {}
        while True:
            arguments: list[Any] = [places, at]
            for limit in limits:
                arguments += (limit.seconds, limit.most, seeds.get(limit.seconds, -1))
            word, now, *used = self._evaluate(f"esb:quota:{client_id}", arguments)
            if word != b"seed":
                return word == b"full", int(now), used
            with self._database.cursor() as cursor:
                seeds = store.counted(cursor, client_id, int(now), [limit.seconds for limit in limits])

    def _evaluate(self, key: str, arguments: list[Any]) -> list[Any]:
        # Connections are spoken to directly: the client's pool and retry layers cost as much again.
        connection: Any = None  # the client's calls bear no types
        try:
            connection = self._take_connection()
            try:
                connection.send_command("EVALSHA", self._digest, 1, key, *arguments)
                answer: list[Any] = connection.read_response()
            except redis.exceptions.NoScriptError:
                connection.send_command("EVAL", _SCRIPT, 1, key, *arguments)
                answer = connection.read_response()
        except BaseException as error:  # also one that ends the thread: an answer may still be on its way
            self._drop(connection)
            if isinstance(error, redis.RedisError):
                raise CounterAway(str(error)) from error
            raise
        self._idle.append(connection)
        return answer

    def _take_connection(self) -> Any:
        try:
            return self._idle.pop()
        except IndexError:
            return self._pool.get_connection()

    def _drop(self, connection: Any) -> None:
        if connection is not None:
            connection.disconnect()
            self._pool.release(connection)
