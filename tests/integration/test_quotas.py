"""Quotas: exact in every window, over threads and processes, with Redis and without it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
import redis
from sqlalchemy import text

from esb_workers.errors import QuotaExceeded
from esb_workers.registry.quotas import Limit, Quotas, RedisCounter, limits_of
from esb_workers.store.engine import Database
from esb_workers.store.ids import new_id

HOUR = (Limit(3600, 5),)


@pytest.fixture(params=["redis", "postgresql"])
def quotas(request: pytest.FixtureRequest, database: Database) -> Iterator[Quotas]:
    """Quotas in either place."""
    url = request.getfixturevalue("redis_url") if request.param == "redis" else None
    quotas = Quotas(database, url)
    yield quotas
    quotas.close()


def taken(quotas: Quotas, client: str, limits: tuple[Limit, ...], times: int) -> int:
    count = 0
    for _ in range(times):
        try:
            quotas.take(client, limits)
            count += 1
        except QuotaExceeded:
            pass
    return count


def accept(database: Database, client: str, count: int) -> None:
    """Messages of `client` as the history has them."""
    with database.transaction() as connection:
        for _ in range(count):
            connection.execute(
                text(
                    "insert into message (id, client_id, source, type, correlation_id) values (:id, :client, 's', 't', 'c')"
                ),
                {"id": new_id(), "client": client},
            )


def test_at_most_so_many_are_taken_whoever_asks(quotas: Quotas) -> None:
    client, counts = new_id(), list[int]()

    def run() -> None:
        counts.append(taken(quotas, client, (Limit(3600, 25), Limit(86400, 1000)), 20))

    threads = [threading.Thread(target=run) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(counts) == 25


def test_what_is_left_is_told_of_the_window_nearest_to_empty(quotas: Quotas) -> None:
    client, limits = new_id(), limits_of({"requestsPerDay": 3, "requestsPerHour": 10})
    assert [limit.seconds for limit in limits] == [3600, 86400]
    result = quotas.take(client, limits)
    assert result is not None
    now = int(datetime.now(UTC).timestamp())
    assert result.nearest[:2] == (3, 2)
    assert abs(result.nearest.reset - (86400 - now % 86400)) <= 2
    assert [window[:2] for window in quotas.windows(client, limits)] == [(10, 9), (3, 2)]


def test_a_refusal_says_how_long_and_takes_nothing(quotas: Quotas) -> None:
    client, limits = new_id(), (Limit(3600, 5), Limit(86400, 100))
    quotas.take(client, limits, 3)
    with pytest.raises(QuotaExceeded) as error:
        quotas.take(client, limits, 3)  # a batch that does not fit is refused whole
    assert 1 <= error.value.retry_after <= 3600
    assert error.value.extra["rate_limit"][:2] == (5, 2)
    assert [window.remaining for window in quotas.windows(client, limits)] == [2, 97]
    quotas.take(client, limits, 2)


def test_places_come_back(quotas: Quotas) -> None:
    client = new_id()
    first = quotas.take(client, HOUR, 5)
    assert taken(quotas, client, HOUR, 1) == 0
    quotas.give_back(first)
    assert taken(quotas, client, HOUR, 9) == 5


def test_a_client_without_limits_is_not_counted(quotas: Quotas) -> None:
    assert quotas.take(new_id(), ()) is None
    quotas.give_back(None)
    assert quotas.windows(new_id(), ()) == []


def test_seconds_end(quotas: Quotas, eventually) -> None:
    client, limits = new_id(), (Limit(1, 2),)
    assert taken(quotas, client, limits, 8) in (2, 4)  # 4 when a second began meanwhile
    eventually(lambda: taken(quotas, client, limits, 1))


def test_clients_do_not_share(quotas: Quotas) -> None:
    assert taken(quotas, new_id(), HOUR, 6) == taken(quotas, new_id(), HOUR, 6) == 5


def test_counters_start_with_what_the_history_says(quotas: Quotas, database: Database) -> None:
    client = new_id()
    accept(database, client, 3)
    assert quotas.windows(client, HOUR)[0].remaining == 2
    assert taken(quotas, client, HOUR, 9) == 2


def test_a_flushed_redis_forgets_nothing(database: Database, redis_url: str) -> None:
    quotas, client = Quotas(database, redis_url), new_id()
    for _ in range(3):
        quotas.take(client, HOUR)
        accept(database, client, 1)
    server = redis.Redis.from_url(redis_url.replace("redis+socket://", "unix://"))
    server.flushall()
    server.script_flush()
    assert taken(quotas, client, HOUR, 9) == 2
    server.close()
    quotas.close()


def test_without_an_answer_from_redis_postgresql_counts(database: Database) -> None:
    quotas, client = Quotas(database, "redis://127.0.0.1:1/0"), new_id()
    accept(database, client, 1)
    assert taken(quotas, client, HOUR, 9) == 4
    assert quotas.windows(client, HOUR)[0].remaining == 0
    quotas.close()


BUSY = (Limit(3600, 100_000), Limit(86400, 1_000_000))


def asked_of_redis(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The places that each question to Redis was for."""
    questions: list[int] = []
    original = RedisCounter._run

    def run(self: RedisCounter, client: str, limits: tuple[Limit, ...], places: int, at: int = 0) -> Any:
        questions.append(places)
        return original(self, client, limits, places, at)

    monkeypatch.setattr(RedisCounter, "_run", run)
    return questions


def used(quotas: Quotas, client: str) -> int:
    return 100_000 - quotas.windows(client, BUSY)[0].remaining


def test_a_busy_client_does_not_ask_redis_for_each_message(
    redis_url: str, database: Database, monkeypatch: pytest.MonkeyPatch, eventually: Callable[..., None]
) -> None:
    questions = asked_of_redis(monkeypatch)
    quotas, client = Quotas(database, redis_url), new_id()
    assert taken(quotas, client, BUSY, 500) == 500
    assert len(questions) < 100
    eventually(lambda: used(quotas, client) == 500)  # what was taken ahead and not used is given back
    quotas.close()


def test_what_is_left_is_told_exactly_of_a_busy_client(redis_url: str, database: Database) -> None:
    quotas, client = Quotas(database, redis_url), new_id()
    left = [taken.nearest.remaining for taken in (quotas.take(client, BUSY) for _ in range(100)) if taken]
    assert left == list(range(99_999, 99_899, -1))
    quotas.close()


def test_nothing_is_taken_ahead_of_the_last_thousand_places(
    redis_url: str, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    questions = asked_of_redis(monkeypatch)
    quotas, client = Quotas(database, redis_url), new_id()
    assert taken(quotas, client, (Limit(86400, 900),), 901) == 900
    assert max(questions) == 1
    quotas.close()


def test_a_busy_client_gets_no_more_than_its_limit_over_two_processes(
    redis_url: str, database: Database, eventually: Callable[..., None]
) -> None:
    first, second = Quotas(database, redis_url), Quotas(database, redis_url)
    client, limits = new_id(), (Limit(86400, 5000),)
    counts = [0, 0]

    def run(index: int, quotas: Quotas) -> None:
        counts[index] = taken(quotas, client, limits, 4000)

    threads = [threading.Thread(target=run, args=pair) for pair in enumerate((first, second))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(counts) <= 5000

    def the_rest_is_taken() -> bool:
        counts[0] += taken(first, client, limits, 50)
        return sum(counts) == 5000

    eventually(the_rest_is_taken)
    assert taken(second, client, limits, 50) == 0
    first.close()
    second.close()
