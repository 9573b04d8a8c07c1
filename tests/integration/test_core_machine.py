"""The core keeps its promises in any order of events: a state machine drives it."""

from __future__ import annotations

from typing import Any

import psycopg2
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, multiple, rule, run_state_machine_as_test

from esb_workers.errors import WorkerDeclaredDead
from esb_workers.store import blocked_keys, jobs, message_log, replays
from esb_workers.store.jobs import Claim, Key
from esb_workers.store.replays import DeadLetterFilter
from tests.support.core import DELIVERY, LEASE, kill, new_worker, open_lane, result, submit


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
        lost = {job for job, holder in self.held_by.items() if holder == self.workers[worker]}
        assert jobs.wanted(self.cursor).lost == bool(lost)
        swept = {job for job, _ in jobs.sweep(self.cursor, LEASE)}
        assert swept == lost
        for job in lost:
            del self.held_by[job]
        self.workers[worker] = new_worker(self.cursor)

    @rule()
    def tick(self) -> None:
        wanted = jobs.wanted(self.cursor, [DELIVERY])
        assert wanted.due == (jobs.due(self.cursor, DELIVERY) > 0)
        self.cursor.execute("select id from job where state = 'b'")
        for (job,) in self.cursor.fetchall():
            if job not in self.blocked:  # it has cost five workers their life, or somebody wanted it ended
                self.end(job, self.wanted.get(job, "dead"))
                self.fence.pop(job, None)
        jobs.unblock(self.cursor, jobs.wanted(self.cursor))

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
            # Order is that of what goes out; a person may cancel whichever they like.
            kept = [job for job in done if job in self.order[key] and self.ended[job] != "cancelled"]
            assert kept == [job for job in self.order[key] if job in set(kept)]


def test_the_core_keeps_its_promises_in_any_order_of_events(database_url: str) -> None:
    machine = type("CoreOnThisDatabase", (Core,), {"url": database_url})
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=40, stateful_step_count=30, deadline=None, suppress_health_check=list(HealthCheck)
        ),
    )
