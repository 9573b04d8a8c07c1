"""Whatever dies, and wherever: runs end as if nothing had happened, each effect under its one key."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import pytest

from esb_workers.orchestration.durability import EFFECTS
from esb_workers.orchestration.engine import Runner
from esb_workers.orchestration.world import Answer, ServiceReply, ServiceRequest
from esb_workers.store import control, executions
from esb_workers.store.engine import Cursor, Database
from tests.support.workflows import Bench, down, service


class Died(BaseException):
    """What `kill -9` is to a thread: nothing catches it."""


class MortalDatabase:
    """A database whose user dies before or after its nth statement."""

    def __init__(self, database: Database, n: int, *, after: bool) -> None:
        self._database = database
        self._left = n
        self._after = after

    @contextmanager
    def cursor(self) -> Iterator[Cursor]:
        self._left -= 1
        if self._left == 0 and not self._after:
            raise Died
        with self._database.cursor() as cursor:
            yield cursor
        if self._left == 0 and self._after:
            raise Died


def mixed() -> list[Any]:
    """A bit of everything."""
    count = {"id": "n", "type": "set", "config": {"variables": {"n": "${n + 1}"}}}
    items = {"items": "${[1, 2, 3, 4, 5]}", "maxConcurrency": 2, "resultPath": "squares"}
    square = [
        service("q", "items", "x", config={"payload": "${item}"}),
        {"id": "t", "type": "transform", "config": {"output": "${item * item}"}},
    ]
    branches = [
        {
            "name": "l",
            "steps": [
                service("bl", "left"),
                {"id": "bw", "type": "wait", "config": {"duration": 1}},
                service("bl2", "left2"),
            ],
        },
        {"name": "r", "steps": [service("br", "right")]},
    ]
    return [
        service("a", "first", retryPolicy={"maxRetries": 2, "initialDelay": 1, "jitter": 0}),
        {"id": "loop", "type": "loop", "config": {"while": "n < 3", "steps": [service("lq", "looped", config={"payload": "${n}"}), count]}},
        {"id": "p", "type": "parallel", "config": {"branches": branches, "resultPath": "both"}},
        {"id": "f", "type": "foreach", "config": {**items, "steps": square}},
        {"id": "end", "type": "succeed", "config": {"output": {"n": "${n}", "squares": "${squares}", "both": "${both}"}}},
    ]  # fmt: skip


EXPECTED = {"n": 3, "squares": [1, 4, 9, 16, 25], "both": {"l": {"at": "op"}, "r": {"at": "op"}}}


def answers(bench: Bench) -> None:
    """The first call of `first` fails; everything else is well. Answers depend on the key alone, as of a good service."""

    def reply(request: ServiceRequest) -> ServiceReply:
        if request.service == "first" and sum(c.service == "first" for c in bench.services.calls) == 1:
            return down()
        return Answer(200, {"at": request.path})

    bench.services.on_call = reply


def go_on(bench: Bench, id_: str) -> dict[str, Any]:
    for _ in range(50):
        bench.settle()
        if bench.execution(id_)["status"] != "open":
            return bench.execution(id_)
        bench.lose_leases()
    raise AssertionError("never ended")


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize(
    ("fold", "durability"),
    [(True, "strict"), (False, "strict"), (True, "relaxed")],
    ids=["folded", "each", "relaxed"],
)
def test_a_worker_may_die_at_any_statement(bench: Bench, after: bool, fold: bool, durability: str) -> None:
    answers(bench)
    workflow = bench.define(mixed(), flow="sequential", durability=durability)
    forgotten = EFFECTS if durability == "relaxed" else 1
    deaths = 0
    for n in range(1, 200, 1 if fold else 4):
        bench.services.calls.clear()
        id_ = bench.start(workflow, {"n": 0})
        mortal = Runner(
            MortalDatabase(bench.database, n, after=after),  # type: ignore[arg-type]
            bench.programs,
            bench.services,
            bench.messages,
            random=lambda: 0.0,
            fold=fold,
        )
        died = False
        for _ in range(60):
            claims = bench.claim(1)
            if not claims and not bench.hurry():
                break
            try:
                for claim in claims:
                    mortal.run(claim.id, claim.attempt)
            except Died:
                died = True
                break
        bench.lose_leases()
        done = go_on(bench, id_)
        assert (done["status"], done["output"]) == ("completed", EXPECTED), (n, done)
        keys = Counter(call.idempotency_key.split(":", 1)[1] for call in bench.services.calls)
        assert set(keys) == {
            "a", "loop[0]/lq", "loop[1]/lq", "loop[2]/lq", "p[l]/bl", "p[l]/bl2", "p[r]/br", *(f"f[{i}]/q" for i in range(5)),
        }, n  # fmt: skip
        assert sum(keys.values()) <= len(keys) + forgotten + 1, "repeats for the death, one for the failure"
        for table in ("job", "scope", "snapshot"):
            assert bench.query(f"select count(*) from {table}") == [(0,)], (n, table)
        deaths += died
        if not died:
            break
    assert deaths > 15


def test_a_worker_that_lost_its_lease_changes_nothing_any_more(bench: Bench) -> None:
    entered, leave = threading.Event(), threading.Event()

    def reply(request: ServiceRequest) -> ServiceReply:
        if len(bench.services.calls) == 1:
            entered.set()
            leave.wait(10)
            return Answer(200, {"who": "zombie"})
        return Answer(200, {"who": "successor"})

    bench.services.on_call = reply
    id_ = bench.start(bench.define([service("a"), service("b")], flow="sequential"))
    (claim,) = bench.claim()
    zombie = threading.Thread(target=bench.runner.run, args=(claim.id, claim.attempt))
    zombie.start()
    assert entered.wait(5)
    bench.lose_leases()
    bench.pump()
    before = bench.events(id_)
    leave.set()
    zombie.join(5)
    done = bench.execution(id_)
    assert (done["status"], done["output"]) == ("completed", {"who": "successor"})
    assert bench.events(id_) == before
    assert [c.path for c in bench.services.calls] == ["op", "op", "op"]


def test_no_wake_up_is_lost_when_many_branches_end_at_once(bench: Bench) -> None:
    """Joins, forks and parents that park meet in every order; a parent that missed its wake-up would never end."""
    leaf = {"id": "s", "type": "set", "config": {"variables": {"x": 1}}}
    steps = [
        {"id": "p", "type": "parallel", "config": {"branches": [{"name": f"b{i}", "steps": [{**leaf, "id": f"s{i}"}, service(f"c{i}")]} for i in range(8)], "join": join}}
        for join in ("all",)
    ]  # fmt: skip
    any_steps = [{**steps[0], "config": {**steps[0]["config"], "join": "any"}}]
    ids = [bench.start(workflow) for workflow in (bench.define(steps), bench.define(any_steps)) for _ in range(15)]
    stop = threading.Event()

    def work(seed: int) -> None:
        runner = bench.new_runner()
        while not stop.is_set():
            claims = bench.claim(3)
            for claim in claims:
                runner.run(claim.id, claim.attempt)
            if not claims:
                stop.wait(0.005)

    with ThreadPoolExecutor(6) as pool:
        futures = [pool.submit(work, seed) for seed in range(6)]
        for _ in range(600):
            if bench.query("select count(*) from execution where status = 'open'") == [(0,)]:
                break
            stop.wait(0.05)
        stop.set()
        for future in futures:
            future.result(10)
    bench.pump()
    assert {bench.execution(id_)["status"] for id_ in ids} == {"completed"}
    assert bench.query("select count(*) from job") == [(0,)]
    doubles = bench.query(
        "select execution_id, path from event where type = 'step.completed' and path = 'p' group by 1, 2 having count(*) > 1"
    )
    assert doubles == []


def test_a_run_that_kills_every_worker_fails_instead(bench: Bench) -> None:
    id_ = bench.start(bench.define([service("a")]))
    for _ in range(5):
        assert bench.claim()
        bench.lose_leases()
    assert bench.claim() == []
    with bench.database.cursor() as cursor:
        assert executions.poison(cursor) == [id_]
    assert (bench.execution(id_)["status"], bench.execution(id_)["error_class"]) == ("failed", "WorkerLost")
    with bench.database.cursor() as cursor:
        assert control.act(cursor, "retry", id_, "{}") == "ok"
    bench.settle()
    assert bench.execution(id_)["status"] == "completed"


def test_recovery_reads_a_snapshot_and_few_events_however_long_the_history(bench: Bench) -> None:
    body = [service("q"), {"id": "n", "type": "set", "config": {"variables": {"n": "${n + 1}"}}}]
    id_ = bench.start(
        bench.define([{"id": "l", "type": "loop", "config": {"while": "n < 300", "steps": body}}]), {"n": 0}
    )

    def die(request: ServiceRequest) -> ServiceReply:
        if len(bench.services.calls) == 250:
            raise Died
        return Answer(200, {})

    bench.services.on_call = die
    (claim,) = bench.claim()
    with pytest.raises(Died):
        bench.runner.run(claim.id, claim.attempt)
    bench.lose_leases()
    with bench.database.cursor() as cursor:
        (again,) = bench.claim()
        loaded = executions.load(cursor, executions.StrandKey(again.id, again.attempt))
    assert loaded is not None and len(loaded.events) <= 60 and loaded.snapshot_n > 600
    bench.runner.run(again.id, again.attempt)
    assert bench.execution(id_)["output"]["n"] == 300
    assert len({c.idempotency_key for c in bench.services.calls}) == 300
