"""The SQL of the core, held to its promises: claim, lease, fence, order, sweep.

A hypothesis state machine drives the real functions against a small model; below it stand the races that a naive
version of each function loses within seconds.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import psycopg2
import pytest

from esb_workers.store import jobs, lanes, messages
from esb_workers.store.engine import Cursor, Database
from esb_workers.store.ids import new_id
from esb_workers.store.jobs import Key
from tests.support.core import DELIVERY, LEASE, kill, new_worker, open_lane, result, submit


@contextmanager
def autocommit(url: str) -> Iterator[Cursor]:
    connection = psycopg2.connect(url)
    connection.autocommit = True
    try:
        with connection.cursor() as cursor:
            yield cursor
    finally:
        connection.close()


def in_parallel(count: int, act: Callable[[int], Any]) -> list[Any]:
    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(act, range(count)))


def test_a_concurrency_limit_holds_over_racing_workers(database_url: str) -> None:
    """Counting in the statement that takes the lock over-admits: the lock is fresh, the count's snapshot is old."""
    with autocommit(database_url) as cursor:
        lane = open_lane(cursor, "limited", max_concurrency=3)
        wanted = {submit(cursor, lane) for _ in range(400)}
    lock, in_flight, peak, seen = threading.Lock(), 0, 0, []

    def work(_: int) -> None:
        nonlocal in_flight, peak
        with autocommit(database_url) as cursor:
            me = new_worker(cursor)
            while len(seen) < len(wanted):
                taken = jobs.claim(cursor, DELIVERY, me, 4, 4)
                with lock:
                    in_flight += len(taken)
                    peak = max(peak, in_flight)
                    seen.extend(c.id for c in taken)
                    in_flight -= len(taken)  # before the completion commits: the true count is never above ours
                if taken:
                    with lock:
                        in_flight += len(taken)
                    with lock:
                        in_flight -= len(taken)
                    jobs.done(cursor, me, [result(c, "ok") for c in taken])

    in_parallel(6, work)
    assert sorted(seen) == sorted(wanted)
    assert 0 < peak <= 3


def test_completions_of_one_messages_deliveries_do_not_deadlock(database_url: str) -> None:
    with autocommit(database_url) as cursor:
        lane_ids = [open_lane(cursor, f"d{n}") for n in range(10)]
        for lane in lane_ids * 60:
            submit(cursor, lane)

    def work(_: int) -> int:
        done = 0
        with autocommit(database_url) as cursor:
            me = new_worker(cursor)
            while taken := jobs.claim(cursor, DELIVERY, me, 40, 10):
                done += len(jobs.done(cursor, me, [result(c, "ok") for c in reversed(taken)]).ids)
        return done

    assert sum(in_parallel(4, work)) == 600


def test_no_key_is_left_stuck_when_insert_and_completion_race(database_url: str) -> None:
    """Promoting inside the inserting or completing transaction leaves keys stuck: neither sees the other's row."""
    with autocommit(database_url) as cursor:
        lane = open_lane(cursor, "ordered")
    total = 300
    finished: list[str] = []
    through: list[int] = []

    def send(sender: int) -> None:
        with autocommit(database_url) as cursor:
            for n in range(total // 2):
                key = f"k{n % 3}"
                submit(cursor, lane, key)
                jobs.promote(cursor, [Key(lane, key)])
        through.append(sender)

    def work(_: int) -> None:
        with autocommit(database_url) as cursor:
            me, idle = new_worker(cursor), 0
            while len(through) < 2 or idle < 50:
                taken = jobs.claim(cursor, DELIVERY, me, 3, 3)
                idle = 0 if taken else idle + 1
                done = jobs.done(cursor, me, [result(c, "ok") for c in taken]) if taken else None
                if done:
                    finished.extend(done.ids)
                    jobs.promote(cursor, done.keys)

    in_parallel(4, lambda n: send(n) if n < 2 else work(n))
    assert len(finished) == total, "without any sweep"


def test_a_promotion_never_waits_for_a_row_that_another_holds_nor_passes_it_by(database_url: str) -> None:
    """It holds the rows it has promoted: waiting for one more, it deadlocked with a worker that recorded both."""
    with autocommit(database_url) as holder, autocommit(database_url) as cursor:
        lane = open_lane(cursor, "ordered")
        first, _, other = submit(cursor, lane, "a"), submit(cursor, lane, "a"), submit(cursor, lane, "b")
        cursor.execute("set lock_timeout = '500ms'")
        holder.execute("begin")
        holder.execute("select from job where id = %s for update", (first,))
        assert jobs.promote_all(cursor) == 1
        cursor.execute("select id::text from job where state = 'r'")
        assert cursor.fetchall() == [(other,)], "not the row behind the one that is held"
        holder.execute("rollback")
        assert jobs.promote_all(cursor) == 1


def test_a_rate_limit_is_kept_and_a_dry_lane_is_not_visited(database_url: str) -> None:
    with autocommit(database_url) as cursor:
        lane = open_lane(cursor, "slow", rate=5.0, burst=5)
        for _ in range(20):
            submit(cursor, lane)
        me = new_worker(cursor)
        taken = jobs.claim(cursor, DELIVERY, me, 20, 20)
        assert len(taken) == 5
        assert jobs.claim(cursor, DELIVERY, me, 20, 20) == []
        wait = jobs.seconds_until_due(cursor, DELIVERY)
        assert wait is not None and 0 < wait <= 0.25


def test_what_was_held_goes_out_at_the_rate_of_catching_up_until_none_is_left(database: Database) -> None:
    delivery = '{"catchUpPerSecond": 4, "ratePerSecond": 50}'

    def status(word: str) -> None:
        cursor.execute("update service set status = %s", (word,))
        cursor.execute("select esb_gate('narrow')")

    def limits() -> tuple[object, ...]:
        cursor.execute("select catching_up_since is not null, rate, burst from lane where id = %s", (lane,))
        return tuple(cursor.fetchone() or ())

    with database.cursor() as cursor:
        cursor.execute(
            "insert into service (id, name, version, endpoint, delivery) values (%s, 'narrow', '1.0.0', 'http://a', %s)",
            (new_id(), delivery),
        )
        cursor.execute("insert into service_state (service_id) select id from service")
        lane = lanes.lane_id(cursor, DELIVERY, "narrow")
        me = new_worker(cursor)
        status("maintenance")
        status("active")
        assert limits() == (False, 50, 50), "nothing was held"
        status("maintenance")
        held = [submit(cursor, lane) for _ in range(2)]
        status("active")
        assert limits() == (True, 4, 1)
        assert lanes.caught_up(cursor) == 0
        taken = jobs.claim(cursor, DELIVERY, me, 20, 20)
        assert len(taken) == 1
        assert jobs.claim(cursor, DELIVERY, me, 20, 20) == []
        wait = jobs.seconds_until_due(cursor, DELIVERY)
        assert wait is not None
        assert 0 < wait <= 0.25
        cursor.execute("update lane set tat = '-infinity', next_at = '-infinity'")  # the time has passed
        taken += jobs.claim(cursor, DELIVERY, me, 20, 20)
        assert sorted(claim.id for claim in taken) == sorted(held)
        submit(cursor, lane)
        assert lanes.caught_up(cursor) == 0, "the held ones are under way"
        jobs.done(cursor, me, [result(claim, "ok") for claim in taken])
        assert lanes.caught_up(cursor) == 1, "what has come since does not count"
        assert limits() == (False, 50, 50)


def test_every_lane_gets_its_turn_however_few_rows_a_claim_takes(database: Database) -> None:
    with database.cursor() as cursor:
        lane_ids = [open_lane(cursor, f"d{n}") for n in range(40)]
        for lane in lane_ids * 4:
            submit(cursor, lane)
        me, after, served = new_worker(cursor), 0, []
        for _ in range(80):
            (claim,) = jobs.claim(cursor, DELIVERY, me, 1, 1, after_lane=after)
            after = claim.lane_id
            served.append(after)
    assert served == lane_ids * 2, "also when the lanes looked at go round the end"


def test_a_closed_gate_holds_a_lane_and_only_that(database: Database) -> None:
    with database.cursor() as cursor:
        held, free = open_lane(cursor, "held"), open_lane(cursor, "free")
        submit(cursor, held)
        wanted = submit(cursor, free)
        cursor.execute("update lane set gate = 'maintenance', gate_until = 'infinity' where id = %s", (held,))
        assert [c.id for c in jobs.claim(cursor, DELIVERY, new_worker(cursor), 10, 10)] == [wanted]


def alone(cursor: Cursor, **limits: Any) -> tuple[int, int]:
    """A worker, and the lane of the only ready row that there is."""
    lane = open_lane(cursor, "alone", **limits)
    if limits:  # as much as these let pass is under way already
        submit(cursor, lane)
        jobs.claim(cursor, DELIVERY, new_worker(cursor), 1, 1)
    submit(cursor, lane)
    return new_worker(cursor), lane


@pytest.mark.parametrize("whole", [True, False])
def test_the_only_ready_row_is_claimed_with_its_lane_and_fence(database: Database, whole: bool) -> None:
    with database.cursor() as cursor:
        me, lane = alone(cursor)
        (claim,) = jobs.claim(cursor, DELIVERY, me, 8, 8, whole=whole)
        assert (claim.lane_id, claim.attempt) == (lane, 1)
        assert jobs.claim(cursor, DELIVERY, me, 8, 8, whole=whole) == []


@pytest.mark.parametrize("whole", [True, False])
@pytest.mark.parametrize(
    "so",
    [
        "update lane set gate_until = 'infinity'",
        "update lane set next_at = now() + interval '1 hour'",
        "update job set run_at = now() + interval '1 hour' where state = 'r'",
        "update job set v = 99 where state = 'r'",
        None,  # there is no room in its lane
    ],
)
def test_the_only_ready_row_is_held_back_by_all_that_holds_others_back(
    database: Database, so: str | None, whole: bool
) -> None:
    with database.cursor() as cursor:
        me, lane = alone(cursor)
        if so is not None:
            cursor.execute(so)
        rooms = {lane: 0} if so is None else None
        assert jobs.claim(cursor, DELIVERY, me, 8, 8, rooms=rooms, whole=whole) == []
        cursor.execute("update lane set gate_until = '-infinity', next_at = '-infinity'")
        cursor.execute("update job set run_at = now(), v = 1")
        assert len(jobs.claim(cursor, DELIVERY, me, 8, 8, whole=whole)) == 1


@pytest.mark.parametrize("limits", [{"max_concurrency": 1}, {"rate": 0.001}])
def test_the_only_ready_row_of_a_service_with_limits_waits_for_them(database: Database, limits: dict[str, Any]) -> None:
    with database.cursor() as cursor:
        me, _ = alone(cursor, **limits)
        assert jobs.claim(cursor, DELIVERY, me, 8, 8, whole=True) == []


def test_the_only_ready_row_is_not_waited_for_while_another_claims_it(database: Database) -> None:
    with database.cursor() as cursor:
        me, _ = alone(cursor)
        with database.raw_transaction() as other:
            other.execute("select id from job where state = 'r' for update")
            assert jobs.claim(cursor, DELIVERY, me, 8, 8, whole=True) == []
        assert len(jobs.claim(cursor, DELIVERY, me, 8, 8, whole=True)) == 1


def test_a_claim_brings_short_messages_along_and_long_ones_are_loaded_once(database: Database) -> None:
    with database.cursor() as cursor:
        lane = open_lane(cursor, "carrying")
        sizes = {"short": 10, "long": 100_000, "redacted": None, "gone": None}
        stored = {name: new_id() for name in sizes}
        for name, size in sizes.items():
            if name != "gone":
                cursor.execute(
                    "insert into message (id, source, type, correlation_id, payload) values (%s, 'a', 'b', %s, repeat('1', %s))",
                    (stored[name], name, size),
                )
            for _ in range(2):
                job = submit(cursor, lane)
                cursor.execute("update job set message_id = %s where id = %s", (stored[name], job))
        claims = jobs.claim(cursor, DELIVERY, new_worker(cursor), 20, 20, whole=True)
        assert len(claims) == 8, "also of messages that are gone"
        assert {c.message_id for c in claims if c.message} == {stored["short"]}
        loaded = messages.load(cursor, list(stored.values()))
    found = jobs.messages_of(database, claims)
    assert found == loaded, "whichever way they came"
    assert {name for name, id_ in stored.items() if id_ in found} == {"short", "long", "redacted"}


def test_upkeep_wants_nothing_of_a_bus_at_rest_and_each_kind_of_work_as_it_comes(database: Database) -> None:
    kinds = ("lost", "unknown", "due", "ready", "aside", "expired", "queued")
    with database.cursor() as cursor:
        lane, me = open_lane(cursor, "quiet"), new_worker(cursor)

        def wanted() -> set[str]:
            found = jobs.wanted(cursor, [DELIVERY], me, 0.0)
            return {kind for kind in kinds if getattr(found, kind)}

        assert wanted() == set()
        job = submit(cursor, lane)
        assert wanted() == {"ready"} and jobs.wanted(cursor).ready and not jobs.wanted(cursor, [1]).ready
        jobs.claim(cursor, DELIVERY, me, 1, 1)
        assert wanted() == {"unknown"}
        cursor.execute(
            "update job set state = 's', worker_id = null, run_at = now() + interval '1 h' where id = %s", (job,)
        )
        assert wanted() == set() and 3590 < (jobs.wanted(cursor, [DELIVERY]).wake or 0) <= 3600
        cursor.execute("update job set run_at = now() - interval '1 s' where id = %s", (job,))
        assert wanted() == {"due"}
        cursor.execute(
            "update job set run_at = now() + interval '1 h', expires_at = now() - interval '1 s' where id = %s", (job,)
        )
        assert wanted() == {"expired"}
        jobs.unblock(cursor, jobs.wanted(cursor))
        assert wanted() == set()
        cursor.execute("select status from delivery where id = %s", (job,))
        assert cursor.fetchone() == ("expired",)
        cursor.execute("update worker set beat_until = now() - interval '1 s' where id = %s", (me,))
        assert wanted() == {"lost"}


def test_a_row_whose_key_was_passed_by_is_made_ready_by_upkeep(database: Database) -> None:
    with database.cursor() as cursor:
        job = submit(cursor, open_lane(cursor, "ordered"), okey="k")
        cursor.execute("update job set state = 'q' where id = %s", (job,))
        wanted = jobs.wanted(cursor)
        assert wanted.queued and not wanted.ready
        assert jobs.unblock(cursor, wanted) == 1 and jobs.wanted(cursor).ready


def test_work_that_costs_five_workers_their_life_ends_as_a_dead_letter(database: Database) -> None:
    with database.cursor() as cursor:
        job = submit(cursor, open_lane(cursor, "poisoned"))
        for _ in range(5):
            me = new_worker(cursor)
            assert [c.id for c in jobs.claim(cursor, DELIVERY, me, 1, 1)] == [job]
            kill(cursor, me)
            assert [swept for swept, _ in jobs.sweep(cursor, LEASE)] == [job]
        wanted = jobs.wanted(cursor)
        assert wanted.aside and not wanted.ready
        jobs.unblock(cursor, wanted)
        cursor.execute("select status, class from delivery where id = %s", (job,))
        assert cursor.fetchone() == ("dead", "worker_lost")
        cursor.execute("select count(*) from attempt where delivery_id = %s and outcome = 'unknown'", (job,))
        assert cursor.fetchone() == (5,)
