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
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, multiple, rule, run_state_machine_as_test

from esb_workers.errors import WorkerDeclaredDead
from esb_workers.store import blocked_keys, jobs, lanes, message_log, replays, workers
from esb_workers.store.engine import Cursor, Database
from esb_workers.store.ids import new_id
from esb_workers.store.jobs import Claim, Key
from esb_workers.store.replays import DeadLetterFilter

DELIVERY = 2
LEASE = 15.0  # seconds


def open_lane(cursor: Cursor, name: str, **limits: Any) -> int:
    lane = lanes.lane_id(cursor, DELIVERY, name)
    cursor.execute(
        "update lane set gate = null, gate_until = '-infinity', hard = %s, max_concurrency = %s, rate = %s, burst = %s where id = %s",
        (bool(limits), limits.get("max_concurrency"), limits.get("rate"), limits.get("burst", 1), lane),
    )
    return lane


def submit(cursor: Cursor, lane: int, okey: str | None = None) -> str:
    job = new_id()
    cursor.execute(
        "insert into job (id, pool, lane_id, okey, state, message_id) values (%s, %s, %s, %s, %s, %s)",
        (job, DELIVERY, lane, okey, "q" if okey else "r", new_id()),
    )
    return job


def new_worker(cursor: Cursor) -> int:
    return workers.register(cursor, DELIVERY, "here", 1, "0", 60)


def result(claim: Claim, outcome: str, **extra: Any) -> dict[str, Any]:
    return {"id": claim.id, "attempt": claim.attempt, "o": outcome, "detail": {}, **extra}


def kill(cursor: Cursor, worker: int) -> None:
    """As seen by the database when a process dies: its heartbeat runs out."""
    cursor.execute("update worker set dead_at = now() where id = %s", (worker,))


@contextmanager
def autocommit(url: str) -> Iterator[Cursor]:
    connection = psycopg2.connect(url)
    connection.autocommit = True
    try:
        with connection.cursor() as cursor:
            yield cursor
    finally:
        connection.close()


class Core(RuleBasedStateMachine):
    """Submit, claim, complete, crash, sweep, hold, block, skip, park, cancel, retry, replay: whatever the order, the promises hold."""

    url: str
    claims = Bundle("claims")

    def __init__(self) -> None:
        super().__init__()
        self.connection = psycopg2.connect(self.url)
        self.connection.autocommit = True
        self.cursor = self.connection.cursor()
        self.cursor.execute(
            "truncate job, delivery, attempt, dead_letter, worker, lane, message, replay, replay_item restart identity"
        )
        self.lanes = [open_lane(self.cursor, "free"), open_lane(self.cursor, "limited", max_concurrency=2)]
        self.workers = [new_worker(self.cursor) for _ in range(2)]
        self.submitted: dict[str, tuple[int, str | None]] = {}
        self.order: dict[Key, list[str]] = {}
        self.ended: dict[str, str] = {}
        self.current: dict[str, Claim] = {}
        self.held_by: dict[str, int] = {}  # in flight
        self.fence: dict[str, tuple[int, int]] = {}  # whose completion counts: (attempt, worker)
        self.first_done: dict[Key, list[str]] = {}
        self.message: dict[str, str] = {}
        self.closed: set[int] = set()  # lanes whose gate is shut
        self.blocked: set[str] = set()  # dead heads that block their keys
        self.wanted: dict[str, str] = {}  # what is to become of a delivery whose attempt comes back in vain

    def teardown(self) -> None:
        self.connection.close()

    @rule(lane=st.integers(0, 1), key=st.sampled_from([None, None, "a", "b"]))
    def submit(self, lane: int, key: str | None) -> None:
        job = submit(self.cursor, self.lanes[lane], key)
        self.cursor.execute("select message_id from job where id = %s", (job,))
        (self.message[job],) = self.cursor.fetchone()
        self.cursor.execute(
            "insert into message (id, source, type, correlation_id, payload) values (%s, 's', 't', 'c', '1')",
            (self.message[job],),
        )
        self.submitted[job] = (self.lanes[lane], key)
        if key:
            self.order.setdefault(Key(self.lanes[lane], key), []).append(job)
            jobs.promote(self.cursor, [Key(self.lanes[lane], key)])

    @rule(target=claims, worker=st.integers(0, 1), limit=st.integers(1, 4), room=st.integers(1, 4))
    def claim(self, worker: int, limit: int, room: int) -> Any:
        taken = jobs.claim(self.cursor, DELIVERY, self.workers[worker], limit, room)
        assert len(taken) <= limit
        for claim in taken:
            assert claim.id not in self.held_by, "claimed twice"
            assert claim.lane_id not in self.closed, "a closed gate holds"
            assert claim.id not in self.blocked, "a blocked head waits for a person"
            before = self.current.get(claim.id)
            assert before is None or claim.attempt > before.attempt, "the fence must grow"
            self.current[claim.id] = claim
            self.held_by[claim.id] = self.workers[worker]
            self.fence[claim.id] = (claim.attempt, self.workers[worker])
        return multiple(*((c, self.workers[worker]) for c in taken))

    @rule(held=claims, outcome=st.sampled_from(["ok", "dead", "retry", "hold", "release", "expired", "block"]))
    def complete(self, held: tuple[Claim, int], outcome: str) -> None:
        claim, worker = held
        if claim.okey is None and outcome == "block":
            outcome = "dead"
        # A late result that nobody has superseded still counts: it saves sending again.
        ours = self.fence.get(claim.id) == (claim.attempt, worker)
        done = jobs.done(self.cursor, worker, [result(claim, outcome, delay_ms=0, **{"class": "Timeout"})])
        assert done.ids == ([claim.id] if ours else []), "a superseded result must be dropped, ours recorded"
        if ours:
            del self.fence[claim.id]
            self.held_by.pop(claim.id, None)
            if outcome in ("retry", "hold", "release", "block"):
                outcome = self.wanted.get(claim.id, outcome)
            if outcome == "block":
                self.blocked.add(claim.id)
            if outcome == "cancelled":
                self.end(claim.id, outcome)
            if outcome in ("ok", "dead", "expired"):
                self.end(claim.id, "delivered" if outcome == "ok" else outcome)
            jobs.promote(self.cursor, done.keys)

    def end(self, job: str, status: str) -> None:
        assert job not in self.ended, "ended twice"
        self.ended[job] = status
        self.wanted.pop(job, None)
        self.blocked.discard(job)
        lane, key = self.submitted[job]
        if key:
            self.first_done.setdefault(Key(lane, key), []).append(job)

    @rule(worker=st.integers(0, 1))
    def crash(self, worker: int) -> None:
        kill(self.cursor, self.workers[worker])
        with pytest.raises(WorkerDeclaredDead):
            try:
                jobs.claim(self.cursor, DELIVERY, self.workers[worker], 1, 1)
            except psycopg2.Error as error:
                assert error.pgcode == "ES002"
                raise WorkerDeclaredDead from error
        swept = {job for job, _ in jobs.sweep(self.cursor, LEASE)}
        lost = {job for job, holder in self.held_by.items() if holder == self.workers[worker]}
        assert swept == lost
        for job in lost:
            del self.held_by[job]
        self.workers[worker] = new_worker(self.cursor)

    @rule()
    def tick(self) -> None:
        jobs.due(self.cursor, DELIVERY)
        self.cursor.execute("select id from job where state = 'b'")
        for (job,) in self.cursor.fetchall():
            if job not in self.blocked:  # it has cost five workers their life, or somebody wanted it ended
                self.end(job, self.wanted.get(job, "dead"))
                self.fence.pop(job, None)
        jobs.promote(self.cursor, jobs.poison(self.cursor))
        jobs.promote_all(self.cursor)

    @rule(lane=st.integers(0, 1), shut=st.booleans())
    def gate(self, lane: int, shut: bool) -> None:
        until = "infinity" if shut else "-infinity"
        self.cursor.execute("update lane set gate_until = %s where id = %s", (until, self.lanes[lane]))
        (self.closed.add if shut else self.closed.discard)(self.lanes[lane])

    @rule(data=st.data(), how=st.sampled_from(["skip", "park"]))
    def end_head(self, data: st.DataObject, how: str) -> None:
        if not (open_ := sorted(self.submitted.keys() - self.ended.keys())):
            return
        job = data.draw(st.sampled_from(open_))
        self.cursor.execute("select okey is not null and state <> 'q' from job where id = %s", (job,))
        (head,) = self.cursor.fetchone()
        ended = blocked_keys.end_head(self.cursor, job, how)
        assert ended is not None
        assert ended.outcome == ("ok" if head else "not_head")
        if head:
            self.stop(job, "cancelled" if how == "skip" else "dead")
            if ended.lane_id is not None:
                jobs.promote(self.cursor, [Key(ended.lane_id, ended.okey)])

    def stop(self, job: str, status: str) -> None:
        """Ended at once, or, in flight, when it comes back in vain."""
        if job in self.held_by:
            self.wanted[job] = status
        else:
            self.end(job, status)
            self.fence.pop(job, None)

    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        if open_ := sorted(self.submitted.keys() - self.ended.keys()):
            job = data.draw(st.sampled_from(open_))
            stopped, keys = message_log.cancel(self.cursor, self.message[job])
            assert stopped
            self.stop(job, "cancelled")
            jobs.promote(self.cursor, keys)

    @rule(data=st.data())
    def retry_a_blocked_head(self, data: st.DataObject) -> None:
        if self.blocked:
            job = data.draw(st.sampled_from(sorted(self.blocked)))
            self.cursor.execute("select * from esb_retry(%s)", (job,))
            self.blocked.discard(job)

    @rule(data=st.data())
    def retry_by_hand(self, data: st.DataObject) -> None:
        if dead := self.dead():
            job = data.draw(st.sampled_from(dead))
            self.cursor.execute("select * from esb_retry(%s)", (job,))
            self.taken_up(job, self.cursor.fetchone())

    @rule(data=st.data())
    def replay(self, data: st.DataObject) -> None:
        if dead := self.dead():
            chosen = data.draw(st.lists(st.sampled_from(dead), min_size=1, max_size=3, unique=True))
            replay_id, matched = replays.start(self.cursor, DeadLetterFilter(ids=chosen), "{}", None)
            assert matched == len(chosen)
            step = replays.step(self.cursor, replay_id, 10, 1)
            assert step.sent == len(chosen)
            for job in chosen:
                self.taken_up(job, self.submitted[job])
            found = replays.get(self.cursor, replay_id)
            assert found is not None
            assert (found.sent, found.open) == (matched, matched)

    def dead(self) -> list[str]:
        return sorted(job for job, status in self.ended.items() if status == "dead")

    def taken_up(self, job: str, place: tuple[int, str | None]) -> None:
        lane, key = place
        del self.ended[job]
        if key:
            self.first_done[Key(lane, key)].remove(job)
            if job in self.order[Key(lane, key)]:  # it has lost its place; those behind it have gone on
                self.order[Key(lane, key)].remove(job)
            jobs.promote(self.cursor, [Key(lane, key)])

    @invariant()
    def everything_is_somewhere_exactly_once(self) -> None:
        self.cursor.execute("select id from job union all select id from delivery")
        rows = [row[0] for row in self.cursor.fetchall()]
        assert len(rows) == len(set(rows)) and set(rows) == set(self.submitted)

    @invariant()
    def what_has_ended_is_history_and_says_how(self) -> None:
        self.cursor.execute("select id, status from delivery")
        assert dict(self.cursor.fetchall()) == self.ended
        self.cursor.execute("select delivery_id from dead_letter")
        assert {row[0] for row in self.cursor.fetchall()} == {j for j, s in self.ended.items() if s == "dead"}

    @invariant()
    def a_limit_is_never_exceeded(self) -> None:
        assert sum(1 for job in self.held_by if self.submitted[job][0] == self.lanes[1]) <= 2

    @invariant()
    def a_key_has_one_active_row_and_ends_in_order(self) -> None:
        self.cursor.execute(
            "select lane_id, okey, count(*) from job where okey is not null and state <> 'q' group by 1, 2"
        )
        assert all(count == 1 for _, _, count in self.cursor.fetchall())
        for key, done in self.first_done.items():
            kept = [job for job in done if job in self.order[key]]
            assert kept == [job for job in self.order[key] if job in set(kept)]


def test_the_core_keeps_its_promises_in_any_order_of_events(database_url: str) -> None:
    machine = type("CoreOnThisDatabase", (Core,), {"url": database_url})
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=40, stateful_step_count=30, deadline=None, suppress_health_check=list(HealthCheck)
        ),
    )


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


def test_work_that_costs_five_workers_their_life_ends_as_a_dead_letter(database: Database) -> None:
    with database.cursor() as cursor:
        job = submit(cursor, open_lane(cursor, "poisoned"))
        for _ in range(5):
            me = new_worker(cursor)
            assert [c.id for c in jobs.claim(cursor, DELIVERY, me, 1, 1)] == [job]
            kill(cursor, me)
            assert [swept for swept, _ in jobs.sweep(cursor, LEASE)] == [job]
        jobs.poison(cursor)
        cursor.execute("select status, class from delivery where id = %s", (job,))
        assert cursor.fetchone() == ("dead", "worker_lost")
        cursor.execute("select count(*) from attempt where delivery_id = %s and outcome = 'unknown'", (job,))
        assert cursor.fetchone() == (5,)
