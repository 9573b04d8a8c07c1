"""The resident engine: work goes on without a broker, under a lease, and stops in good order."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest

from esb_workers.app import make_celery
from esb_workers.errors import Unavailable
from esb_workers.runtime import batch
from esb_workers.runtime.ahead import DEPTH
from esb_workers.runtime.batch import BatchEngine
from esb_workers.runtime.engine import last_turn
from esb_workers.runtime.ringer import Ringer
from esb_workers.runtime.slots import SlotEngine
from esb_workers.runtime.slotwork import Outcome
from esb_workers.runtime.teller import Teller
from esb_workers.settings import Settings
from esb_workers.store import jobs, lanes
from esb_workers.store.engine import Database
from esb_workers.store.ids import new_id
from esb_workers.store.jobs import Claim, Done

DELIVERY = 2


class Calls:
    """Work that calls a function and records what it answers."""

    deadline_seconds = 30.0

    def __init__(self, database: Database, act: Callable[[Claim], dict[str, Any]]) -> None:
        self.database, self.act = database, act

    def prepare(self, claims: Sequence[Claim]) -> Sequence[Claim]:
        return claims

    def run(self, task: Claim) -> Outcome:
        return Outcome({"id": task.id, "attempt": task.attempt, "detail": {}, **self.act(task)})

    def release(self, claim: Claim) -> Any:
        return {"id": claim.id, "attempt": claim.attempt, "o": "release"}

    def record(self, worker: int, records: Sequence[Any]) -> Done:
        with self.database.cursor() as cursor:
            return jobs.done(cursor, worker, records)


Start = Callable[[Callable[[Claim], dict[str, Any]]], SlotEngine]


@pytest.fixture
def start(database: Database) -> Iterator[Start]:
    """Starts engines whose broker is not there: nothing listens on its port."""
    engines: list[SlotEngine] = []
    chosen = Settings.load({}, None, broker_url="redis://127.0.0.1:1/0", lease_seconds=2.0, sweep_seconds=0.5)

    def run(act: Callable[[Claim], dict[str, Any]]) -> SlotEngine:
        ringer = Ringer(make_celery(chosen))
        engine = SlotEngine("delivery", chosen, database, ringer, Calls(database, act), slots=8)
        engine.start()
        engines.append(engine)
        return engine

    yield run
    for engine in engines:
        engine.stop(5)
        engine.ringer.close()


def submit(database: Database, name: str, count: int = 1, seconds_ahead: float = 0) -> list[str]:
    made = [new_id() for _ in range(count)]
    with database.cursor() as cursor:
        lane = lanes.lane_id(cursor, DELIVERY, name)
        cursor.execute("update lane set gate = null, gate_until = '-infinity' where id = %s", (lane,))
        for job in made:
            cursor.execute(
                "insert into job (id, pool, lane_id, state, run_at, message_id) values (%s, 2, %s, %s, now() + make_interval(secs => %s), %s)",
                (job, lane, "s" if seconds_ahead else "r", seconds_ahead, new_id()),
            )
    return made


def statuses(database: Database) -> dict[str, str]:
    with database.cursor() as cursor:
        cursor.execute("select id, status from delivery")
        return dict(cursor.fetchall())


def test_work_is_done_though_no_broker_is_there(
    database: Database, start: Start, eventually: Callable[..., None]
) -> None:
    wanted = submit(database, "somewhere", 200)
    start(lambda claim: {"o": "ok"})
    eventually(lambda: statuses(database) == dict.fromkeys(wanted, "delivered"))


def test_one_lane_is_drained_without_waiting_for_a_poll(
    database: Database, start: Start, eventually: Callable[..., None]
) -> None:
    engine = start(lambda claim: {"o": "ok"})
    eventually(lambda: engine.worker_id)
    wanted = submit(database, "somewhere", 100)
    began = time.monotonic()
    engine.poke()
    eventually(lambda: len(statuses(database)) == len(wanted), every=0.005)
    assert engine.figures.claimed == 100
    assert time.monotonic() - began < 5, "a row after a row, each waiting for the poll, would take fifty seconds"


def test_a_retry_comes_when_it_is_due(database: Database, start: Start, eventually: Callable[..., None]) -> None:
    seen: list[float] = []

    def fail_once(claim: Claim) -> dict[str, Any]:
        seen.append(time.monotonic())
        return {"o": "retry", "delay_ms": 300} if claim.tries == 0 else {"o": "ok"}

    (wanted,) = submit(database, "somewhere")
    start(fail_once)
    eventually(lambda: statuses(database) == {wanted: "delivered"})
    assert seen[1] - seen[0] >= 0.29


def test_a_bell_returns_when_the_pool_is_empty(
    database: Database, start: Start, eventually: Callable[..., None]
) -> None:
    engine = start(lambda claim: {"o": "ok"})
    eventually(lambda: engine.worker_id)
    wanted = submit(database, "somewhere", 20)
    engine.drain()
    eventually(lambda: len(statuses(database)) == len(wanted))


def test_a_worker_declared_dead_starts_anew_and_its_late_result_is_dropped_once_another_has_claimed(
    database: Database, start: Start, eventually: Callable[..., None]
) -> None:
    entered, go_on, calls = threading.Event(), threading.Event(), []

    def act(claim: Claim) -> dict[str, Any]:
        calls.append(claim.attempt)
        if len(calls) == 1:
            entered.set()
            assert go_on.wait(20)
            return {"o": "dead", "class": "TooLate"}
        return {"o": "ok"}

    engine = start(act)
    (wanted,) = submit(database, "somewhere")
    engine.poke()
    assert entered.wait(10)
    with database.cursor() as cursor:
        cursor.execute("update worker set dead_at = now() where id = %s", (engine.worker_id,))
    eventually(lambda: statuses(database) == {wanted: "delivered"}, seconds=20)
    go_on.set()
    eventually(lambda: engine.figures.superseded == 1)
    assert statuses(database) == {wanted: "delivered"}
    assert calls == [1, 2] and engine.figures.lives >= 2


def test_a_stopping_worker_finishes_what_is_under_way(
    database: Database, start: Start, eventually: Callable[..., None]
) -> None:
    entered = threading.Event()

    def act(claim: Claim) -> dict[str, Any]:
        entered.set()
        time.sleep(0.4)  # the call itself: it must be longer than a stop takes
        return {"o": "ok"}

    (wanted,) = submit(database, "somewhere")
    engine = start(act)
    assert entered.wait(10)
    engine.stop(10)
    assert statuses(database) == {wanted: "delivered"}
    with database.cursor() as cursor:
        cursor.execute("select count(*) from worker where dead_at is null")
        assert cursor.fetchone() == (0,)


def test_a_claim_whose_answer_was_lost_is_done_though_the_worker_lives(
    database: Database, start: Start, eventually: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its lease is good and its heart beats, so no sweep ever takes the row back: the worker itself must."""
    monkeypatch.setattr("esb_workers.runtime.engine.UNKNOWN_AFTER", 0.5)
    engine = start(lambda claim: {"o": "ok"})
    eventually(lambda: engine.worker_id)
    (wanted,) = submit(database, "somewhere", seconds_ahead=3600)
    with database.cursor() as cursor:
        cursor.execute("update job set state = 'r', run_at = now() where id = %s", (wanted,))
        assert jobs.claim(cursor, DELIVERY, engine.worker_id, 1, 1, lease_seconds=3600), "whose answer nobody acts on"
    eventually(lambda: statuses(database) == {wanted: "delivered"})
    assert attempts(database) == [], "it was never begun: no attempt, no loss"


def test_rows_that_could_not_be_prepared_are_done_later(
    database: Database, start: Start, eventually: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("esb_workers.runtime.engine.UNKNOWN_AFTER", 0.5)
    prepare, failures = Calls.prepare, iter([Unavailable("gone")])

    def fail_once(calls: Calls, claims: Sequence[Claim]) -> Sequence[Claim]:
        for error in failures:
            raise error
        return prepare(calls, claims)

    monkeypatch.setattr(Calls, "prepare", fail_once)
    wanted = submit(database, "somewhere", 3)
    start(lambda claim: {"o": "ok"})
    eventually(lambda: statuses(database) == dict.fromkeys(wanted, "delivered"))


def test_an_outcome_that_cannot_be_recorded_is_an_unknown_attempt_and_is_followed_by_another(
    database: Database, start: Start, eventually: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("esb_workers.runtime.engine.UNKNOWN_AFTER", 0.5)
    record, failures = Calls.record, iter([ValueError("a defect")])

    def fail_once(calls: Calls, worker: int, records: Sequence[Any]) -> Done:
        for error in failures:
            raise error
        return record(calls, worker, records)

    monkeypatch.setattr(Calls, "record", fail_once)
    (wanted,) = submit(database, "somewhere")
    start(lambda claim: {"o": "ok"})
    eventually(lambda: statuses(database) == {wanted: "delivered"})
    assert attempts(database) == [(wanted, 1, "unknown"), (wanted, 2, "ok")]


def test_a_batch_is_handled_again_when_the_database_was_away(
    database: Database, eventually: Callable[..., None]
) -> None:
    failures = iter([Unavailable("a deadlock")])

    class Batch:
        def handle(self, worker: int, claims: Sequence[Claim]) -> Done:
            for error in failures:
                raise error
            with database.cursor() as cursor:
                return jobs.done(
                    cursor, worker, [{"id": c.id, "attempt": c.attempt, "o": "ok", "detail": {}} for c in claims]
                )

    chosen = Settings.load({}, None, broker_url="redis://127.0.0.1:1/0", lease_seconds=2.0, sweep_seconds=0.5)
    engine = BatchEngine("delivery", chosen, database, Ringer(make_celery(chosen)), Batch())
    wanted = submit(database, "somewhere", 3)
    engine.start()
    eventually(lambda: statuses(database) == dict.fromkeys(wanted, "delivered"))
    engine.stop(5)


def attempts(database: Database) -> list[Any]:
    with database.cursor() as cursor:
        cursor.execute("select delivery_id, number, outcome from attempt order by 1, 2")
        return cursor.fetchall()


def test_rows_that_workers_died_of_are_tried_one_at_a_time(
    database: Database, start: Start, eventually: Callable[..., None]
) -> None:
    """Else whatever kills its worker would take those that were claimed with it along, five times over."""
    under_way, most, lock = 0, 0, threading.Lock()

    def act(claim: Claim) -> dict[str, Any]:
        nonlocal under_way, most
        with lock:
            under_way += 1
            most = max(most, under_way)
        time.sleep(0.05)
        with lock:
            under_way -= 1
        return {"o": "ok"}

    wanted = submit(database, "somewhere", 6)
    with database.cursor() as cursor:
        cursor.execute("update job set losses = 2")
    start(act)
    eventually(lambda: statuses(database) == dict.fromkeys(wanted, "delivered"), seconds=20)
    assert most == 1


def test_a_batch_leaves_what_workers_died_of_for_the_end(database: Database, eventually: Callable[..., None]) -> None:
    batches: list[list[int]] = []

    class Batch:
        def handle(self, worker: int, claims: Sequence[Claim]) -> Done:
            batches.append([c.losses for c in claims])
            with database.cursor() as cursor:
                return jobs.done(
                    cursor, worker, [{"id": c.id, "attempt": c.attempt, "o": "ok", "detail": {}} for c in claims]
                )

    wanted = submit(database, "somewhere", 7)
    with database.cursor() as cursor:
        cursor.execute("update job set losses = 2 where id = any(%s::uuid[])", (wanted[:3],))
    chosen = Settings.load({}, None, broker_url="redis://127.0.0.1:1/0", lease_seconds=2.0, sweep_seconds=0.5)
    engine = BatchEngine("delivery", chosen, database, Ringer(make_celery(chosen)), Batch())
    engine.start()
    eventually(lambda: statuses(database) == dict.fromkeys(wanted, "delivered"), seconds=20)
    engine.stop(5)
    assert batches == [[0, 0, 0, 0], [2], [2], [2]]


@pytest.mark.parametrize(("lanes_busy", "expected"), [(1, [100, 100, 500, 500, 200]), (4, [100] * 14)])
def test_batches_grow_while_one_lane_alone_floods_the_pool(
    database: Database,
    eventually: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
    lanes_busy: int,
    expected: list[int],
) -> None:
    """The first is small all the same: it may be what kills the worker."""
    batches: list[int] = []

    class Batch:
        def handle(self, worker: int, claims: Sequence[Claim]) -> Done:
            batches.append(len(claims))
            with database.cursor() as cursor:
                return jobs.done(
                    cursor, worker, [{"id": c.id, "attempt": c.attempt, "o": "ok", "detail": {}} for c in claims]
                )

    monkeypatch.setattr(batch, "QUICK", 1.0)  # seconds a row: whatever the machine is doing
    for n in range(lanes_busy):
        submit(database, f"flood-{n}", 1400 // lanes_busy)
    chosen = Settings.load({}, None, broker_url="redis://127.0.0.1:1/0", lease_seconds=2.0, sweep_seconds=0.5)
    engine = BatchEngine("delivery", chosen, database, Ringer(make_celery(chosen)), Batch())
    engine.start()
    eventually(lambda: len(statuses(database)) == 1400, seconds=20)
    engine.stop(5)
    assert batches == expected


def test_a_lane_that_is_new_gets_its_turn_while_others_keep_every_slot_busy(
    database: Database, start: Start, eventually: Callable[..., None]
) -> None:
    for n in range(6):
        submit(database, f"busy-{n}", 400)
    engine = start(lambda claim: time.sleep(0.01) or {"o": "ok"})  # type: ignore[func-returns-value]
    eventually(lambda: engine.figures.recorded > 300, seconds=20)
    wanted = submit(database, "new", 1)
    with database.cursor() as cursor:
        cursor.execute("update job set run_at = now() + interval '1 ms' where id = any(%s::uuid[])", (wanted,))
    eventually(lambda: wanted[0] in statuses(database), seconds=20)
    assert len(statuses(database)) < 2400, "the others were not empty yet"


@pytest.mark.parametrize(
    ("lanes", "after", "last"), [({4, 7}, 3, 7), ({9, 1, 2}, 8, 2), ({5}, 5, 5), ({1, 2, 3}, 3, 3)]
)
def test_turns_go_on_where_they_left_off_also_round_the_end(lanes: set[int], after: int, last: int) -> None:
    assert last_turn(lanes, after) == last


def count(database: Database, query: str) -> int:
    with database.cursor() as cursor:
        cursor.execute(query)
        return int(cursor.fetchone()[0])  # type: ignore[index]


class Destination:
    """Answers at once until it is told to hang or to fail; the most calls that were under way at once."""

    def __init__(self) -> None:
        self.hanging, self.failing = threading.Event(), False
        self.hanging.set()  # to wait for it is to go on
        self.begun, self.under_way, self.most = 0, 0, 0
        self._lock = threading.Lock()

    def __call__(self, claim: Claim) -> dict[str, Any]:
        with self._lock:
            self.begun += 1
            self.under_way += 1
            self.most = max(self.most, self.under_way)
        self.hanging.wait(20)
        with self._lock:
            self.under_way -= 1
        return {"o": "retry", "delay_ms": 3_600_000} if self.failing else {"o": "ok"}


def starting(database: Database, lease_seconds: float, sweep_seconds: float, **options: Any) -> Iterator[Start]:
    """Starts engines of eight slots that nobody rings for."""
    broker = "redis://127.0.0.1:1/0"
    chosen = Settings.load({}, None, broker_url=broker, lease_seconds=lease_seconds, sweep_seconds=sweep_seconds)
    ringer = Ringer(make_celery(chosen))
    engines: list[SlotEngine] = []

    def run(act: Callable[[Claim], dict[str, Any]]) -> SlotEngine:
        engine = SlotEngine("delivery", chosen, database, ringer, Calls(database, act), slots=8, **options)
        engine.start()
        engines.append(engine)
        return engine

    yield run
    for engine in engines:
        engine.stop(5)
    ringer.close()


@pytest.fixture
def start_ahead(database: Database) -> Iterator[Start]:
    """As `start`, with rows claimed ahead, each of which needs a thread."""
    yield from starting(database, 5.0, 0.5, ahead=DEPTH, ready=lambda task: None)


@pytest.fixture
def start_asleep(database: Database) -> Iterator[Start]:
    """Starts engines that do not look by themselves when they have found nothing."""
    yield from starting(database, 30.0, 300.0)


def test_many_rows_of_a_quick_lane_are_each_done_once_by_no_more_slots_than_its_window(
    database: Database, start_ahead: Start, eventually: Callable[..., None]
) -> None:
    made, there = submit(database, "quick", 3000), Destination()
    engine = start_ahead(there)
    eventually(lambda: count(database, "select count(*) from delivery") == len(made), seconds=60)
    assert there.begun == len(made) and there.most <= 4
    assert engine.figures.superseded == 0


def test_word_of_a_row_wakes_a_worker_that_nobody_rings_for_and_that_does_not_look(
    database: Database, start_asleep: Start, eventually: Callable[..., None]
) -> None:
    engine = start_asleep(lambda claim: {"o": "ok"})
    listening = "select count(*) from pg_stat_activity where query = 'listen esb_delivery'"
    eventually(lambda: engine._idle_count > 0 and count(database, listening) > 0, seconds=10)
    submit(database, "told", 1)
    with database.cursor() as cursor:
        Teller("delivery", engine.ringer.voice).committed(cursor, 1)
    eventually(lambda: count(database, "select count(*) from delivery") == 1, seconds=10)


def test_the_next_call_to_a_service_with_a_limit_begins_when_the_last_one_is_recorded(
    database: Database, start_asleep: Start, eventually: Callable[..., None]
) -> None:
    submit(database, "one at a time", 4)
    with database.cursor() as cursor:
        cursor.execute("update lane set max_concurrency = 1 where name = 'one at a time'")

    def act(claim: Claim) -> dict[str, Any]:
        time.sleep(0.4)  # longer than the engine looks by itself after a row
        return {"o": "ok"}

    start_asleep(act)
    eventually(lambda: count(database, "select count(*) from delivery") == 4, seconds=10)


def test_what_is_held_ahead_of_a_lane_that_hangs_is_given_back_and_others_go_on(
    database: Database, start_ahead: Start, eventually: Callable[..., None]
) -> None:
    submit(database, "hangs", 3000)
    there = Destination()

    def act(claim: Claim) -> dict[str, Any]:
        return there(claim) if claim.lane_id == lane else {"o": "ok"}

    lane = count(database, "select id from lane where name = 'hangs'")
    submit(database, "well", 50)  # so that it is known to be well
    done = "select count(*) from delivery d join lane l on l.id = d.lane_id where l.name = 'well'"
    start_ahead(act)
    eventually(lambda: there.begun > 500 and count(database, done) == 50, seconds=30)
    there.hanging.clear()
    held = "select count(*) from job where state = 'f' and lane_id = " + str(lane)
    eventually(lambda: count(database, held) == there.under_way, seconds=10)
    submit(database, "well", 200)
    eventually(lambda: count(database, done) == 250, seconds=10)
    there.hanging.set()
    eventually(lambda: count(database, "select count(*) from delivery") == 3250, seconds=60)
    assert there.begun == 3000, "what was given back had not been begun"


def test_a_lane_that_begins_to_fail_costs_no_try_of_what_was_held_ahead(
    database: Database, start_ahead: Start, eventually: Callable[..., None]
) -> None:
    submit(database, "fails", 2000)
    there = Destination()
    engine = start_ahead(there)
    eventually(lambda: there.begun > 500, seconds=30)
    there.failing = True
    eventually(lambda: count(database, "select count(*) from job where tries > 0") > 0, seconds=10)
    engine.stop(5)
    tried = count(database, "select count(*) from job where tries > 0")
    assert count(database, "select count(*) from delivery") + tried == there.begun
    assert count(database, "select count(*) from job where state = 'f'") == 0


def test_a_stopping_worker_gives_back_what_it_holds_ahead(
    database: Database, start_ahead: Start, eventually: Callable[..., None]
) -> None:
    submit(database, "stops", 3000)
    there = Destination()
    engine = start_ahead(there)
    eventually(lambda: there.begun > 500, seconds=30)
    engine.stop(5)
    assert count(database, "select count(*) from job where state = 'f'") == 0
    assert count(database, "select count(*) from delivery") == there.begun
