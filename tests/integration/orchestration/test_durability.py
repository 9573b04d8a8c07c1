"""`durability`: what a run has on record when its worker dies, and what it therefore repeats. Strict, the call under
way; relaxed, at most the calls since its last commit, under the same keys, and nothing that must not be repeated.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from esb_workers.orchestration import durability
from esb_workers.orchestration.durability import EFFECTS
from esb_workers.orchestration.tasks import StrandWork
from esb_workers.orchestration.world import Answer, ServiceReply, ServiceRequest
from esb_workers.settings import Settings
from esb_workers.store import control
from esb_workers.store.engine import Database
from tests.support.api import ApiClient
from tests.support.receiver import Hit, Receiver, Reply
from tests.support.workflows import Bench, down, service

Eventually = Callable[..., None]
STEPS = 2 * EFFECTS + 3


class Died(BaseException):
    """What `kill -9` is to a thread: nothing catches it."""


@pytest.fixture(autouse=True)
def all_day(monkeypatch: pytest.MonkeyPatch) -> None:
    """Calls are quick by definition here, however slow this machine is."""
    monkeypatch.setattr(durability, "SECONDS", 3600.0)


def calls(count: int = STEPS, **over: Any) -> list[Any]:
    return [service(f"s{n}", **over) for n in range(count)]


def dies_at(bench: Bench, *numbers: int) -> None:
    """The worker dies with these calls, counted from 0, done and not on record. Answers depend on the key alone."""

    def reply(request: ServiceRequest) -> ServiceReply:
        if len(bench.services.calls) - 1 in numbers:
            raise Died
        return Answer(200, {"key": request.idempotency_key})

    bench.services.on_call = reply


def killed(bench: Bench) -> None:
    """Run until the worker dies; then its lease is lost."""
    with pytest.raises(Died):
        bench.pump()
    bench.lose_leases()


def repeats(bench: Bench) -> list[str]:
    """The steps that were called more than once, in order; none more than twice."""
    counts = Counter(call.idempotency_key.split(":", 1)[1] for call in bench.services.calls)
    assert set(counts.values()) <= {1, 2}
    return [step for step, count in counts.items() if count == 2]


def named(first: int, last: int) -> list[str]:
    return [f"s{n}" for n in range(first, last + 1)]


@pytest.mark.parametrize("at", range(0, STEPS, 4))
def test_a_strict_run_repeats_the_call_under_way_alone(bench: Bench, at: int) -> None:
    dies_at(bench, at)
    id_ = bench.start(bench.define(calls(), flow="sequential"))
    killed(bench)
    assert bench.types(id_)[-1] == f"step.started s{at}"
    bench.pump()
    assert bench.execution(id_)["status"] == "completed"
    assert repeats(bench) == [f"s{at}"]


@pytest.mark.parametrize("at", [0, 1, EFFECTS - 1, EFFECTS, EFFECTS + 1, STEPS - 1])
def test_a_relaxed_run_repeats_what_came_since_its_last_commit(bench: Bench, at: int) -> None:
    dies_at(bench, at)
    id_ = bench.start(bench.define(calls(), flow="sequential", durability="relaxed"))
    killed(bench)
    committed = at // EFFECTS * EFFECTS
    assert bench.types(id_)[-1] == f"step.started s{committed}"
    bench.pump()
    done = bench.execution(id_)
    assert (done["status"], done["context"]) == ("completed", {"key": f"{id_}:s{STEPS - 1}"})
    assert repeats(bench) == named(committed, at)
    assert [t for t in bench.types(id_) if t.startswith("step.completed")] == [
        f"step.completed {s}" for s in named(0, STEPS - 1)
    ]


def test_relaxed_repeats_bear_the_same_body_and_key(bench: Bench) -> None:
    payload = {"at": "${execution.startedAt}", "n": "${n}"}
    count = {"id": "count", "type": "set", "config": {"variables": {"n": "${n + 1}"}}}
    steps = [service("a"), count, service("b", config={"payload": payload}), service("c")]
    dies_at(bench, 2)
    bench.start(bench.define(steps, flow="sequential", durability="relaxed", variables={"n": 1}))
    killed(bench)
    bench.pump()
    first, second = (call for call in bench.services.calls if call.idempotency_key.endswith(":b"))
    assert (first.body, first.idempotency_key) == (second.body, second.idempotency_key)


def test_a_relaxed_run_commits_before_a_call_that_begins_late(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(durability, "SECONDS", 0.0)
    dies_at(bench, 4)
    id_ = bench.start(bench.define(calls(8), flow="sequential", durability="relaxed"))
    killed(bench)
    assert bench.types(id_)[-1] == "step.started s4"


def test_a_relaxed_run_commits_before_a_call_that_may_outlast_its_lease(bench: Bench) -> None:
    bench.services.timeouts["slow"] = 600_000
    dies_at(bench, 2)
    steps = [service("s0"), service("s1"), service("s2", "slow")]
    id_ = bench.start(bench.define(steps, flow="sequential", durability="relaxed"))
    killed(bench)
    assert bench.types(id_)[-1] == "step.started s2"


@pytest.mark.parametrize(("at", "last", "again"), [(1, "s1", ["s1"]), (3, "s2", ["s2", "s3"])], ids=["before", "after"])
def test_what_is_undone_later_is_on_record_before_and_after_it_is_done(
    bench: Bench, at: int, last: str, again: list[str]
) -> None:
    undone = service("s1", compensate={"type": "service_call", "config": {"serviceName": "svc", "method": "undo"}})
    steps = [service("s0"), undone, service("s2"), service("s3")]
    dies_at(bench, at)
    id_ = bench.start(bench.define(steps, flow="sequential", durability="relaxed"))
    killed(bench)
    assert bench.types(id_)[-1] == f"step.started {last}"
    bench.pump()
    assert repeats(bench) == again


def test_where_an_error_leads_is_decided_once(bench: Bench) -> None:
    """A repeat of the failed call might succeed: then the run would have gone both ways."""
    steps = [service("s0"), service("s1", onFailure="s3"), service("s2"), service("s3"), service("s4")]

    def reply(request: ServiceRequest) -> ServiceReply | None:
        so_far = len(bench.services.calls)
        if so_far == 4:
            raise Died
        return down() if so_far == 2 else None

    bench.services.on_call = reply
    id_ = bench.start(bench.define(steps, flow="sequential", durability="relaxed"))
    killed(bench)
    assert "step.failed s1" in bench.types(id_)
    bench.pump()
    assert bench.execution(id_)["status"] == "completed"
    assert repeats(bench) == ["s3", "s4"]


def test_a_signal_is_taken_by_a_wait_that_is_on_record(bench: Bench) -> None:
    wait = {"id": "w", "type": "wait_for_signal", "config": {"signal": "go", "resultPath": "told"}}
    dies_at(bench, 2)
    id_ = bench.start(bench.define([*calls(2), wait, service("s2")], flow="sequential", durability="relaxed"))
    bench.query("insert into signal (execution_id, name, payload) values (%s, 'go', '7') returning id", id_)
    killed(bench)
    bench.pump()
    done = bench.execution(id_)
    assert (done["status"], done["context"]["told"]) == ("completed", 7)
    assert repeats(bench) == ["s2"]


def test_a_run_below_a_relaxed_one_is_started_once(bench: Bench) -> None:
    bench.define([{"id": "x", "type": "succeed", "config": {"output": {"x": 1}}}], name="below")
    below = {"id": "b", "type": "sub_workflow", "config": {"workflowName": "below", "resultPath": "below"}}
    dies_at(bench, 3)
    id_ = bench.start(bench.define([*calls(2), below, service("s2"), service("s3")], flow="sequential", durability="relaxed"))  # fmt: skip
    killed(bench)
    bench.pump()
    assert bench.execution(id_)["status"] == "completed"
    assert bench.query("select count(*) from execution where parent_id = %s", id_) == [(1,)]


def test_items_branches_and_rounds_of_a_relaxed_run_end_over_a_death_at_any_call(bench: Bench) -> None:
    items = {"items": "${[1, 2, 3]}", "maxConcurrency": 2, "resultPath": "items"}
    branches = [{"name": name, "steps": [service(name), service(f"{name}2")]} for name in ("l", "r")]
    count = {"id": "n", "type": "set", "config": {"variables": {"n": "${n + 1}"}}}
    steps = [
        service("a"),
        {"id": "f", "type": "foreach", "config": {**items, "steps": [service("i", config={"payload": "${item}"})]}},
        {"id": "p", "type": "parallel", "config": {"branches": branches}},
        {"id": "loop", "type": "loop", "config": {"while": "n < 3", "steps": [service("r0"), count]}},
        {"id": "end", "type": "succeed", "config": {"output": {"n": "${n}", "items": "${items}"}}},
    ]
    workflow = bench.define(steps, flow="sequential", durability="relaxed", variables={"n": 0})
    for at in range(11):
        bench.services.calls.clear()
        dies_at(bench, at)
        id_ = bench.start(workflow)
        killed(bench)
        for _ in range(20):
            bench.settle()
        done = bench.execution(id_)
        assert (done["status"], done["output"]["n"]) == ("completed", 3), at
        assert [item["key"] for item in done["output"]["items"]] == [f"{id_}:f[{n}]/i" for n in range(3)]
        assert len(repeats(bench)) <= 3, "a strand repeats its own calls alone"
    assert bench.query("select count(*) from job") == [(0,)]


def test_a_pause_stops_a_relaxed_run_at_its_next_commit(bench: Bench) -> None:
    def reply(request: ServiceRequest) -> ServiceReply | None:
        if len(bench.services.calls) == 3:
            with bench.database.raw_transaction() as cursor:
                control.act(cursor, "pause", id_, "{}")
        return None

    bench.services.on_call = reply
    id_ = bench.start(bench.define(calls(), flow="sequential", durability="relaxed"))
    bench.pump()
    assert bench.execution(id_)["status"] == "paused"
    assert len(bench.services.calls) == EFFECTS, "those that were put off together"
    assert bench.types(id_)[-1] in ("run.paused", f"step.completed s{EFFECTS - 1}")


def test_a_run_that_has_lost_a_worker_goes_on_strictly(bench: Bench) -> None:
    """Else a step that kills its workers would have what came before it repeated five times."""
    work = StrandWork(bench.database, bench.runner)
    dies_at(bench, 3, 7)
    id_ = bench.start(bench.define(calls(8), flow="sequential", durability="relaxed"))
    killed(bench)
    (again,) = bench.claim()
    with pytest.raises(Died):
        work.run(again)
    assert bench.types(id_)[-1] == "step.started s3"


def test_strict_and_relaxed_runs_share_commits_and_neither_changes_the_other(bench: Bench) -> None:
    """What is put off is not in the statement that they share: a strict run's call is preceded by its own commit."""

    def reply(request: ServiceRequest) -> ServiceReply | None:
        run, step = request.idempotency_key.split(":", 1)
        if run in strict:
            assert f"step.started {step}" in bench.types(run)
        return None

    bench.services.on_call = reply
    kinds = [bench.define(calls(6), flow="sequential", durability=kind) for kind in ("strict", "relaxed")]
    strict, relaxed = ({bench.start(kind) for _ in range(8)} for kind in kinds)
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(lambda claim: bench.runner.run(claim.id, claim.attempt), bench.claim()))
    assert {bench.execution(id_)["status"] for id_ in strict | relaxed} == {"completed"}


# --- with a process that is killed -----------------------------------------------------------------------

#: An orchestration worker, and nothing else.
_WORKER = """
import sys, threading
from esb_workers.app import make_celery
from esb_workers.orchestration import durability
from esb_workers.runtime.ringer import Ringer
from esb_workers.settings import Settings
from esb_workers.store.engine import Database
from esb_workers.worker import make_engine

url, key = sys.argv[1:]
durability.SECONDS = 3600.0
settings = Settings.load({}, None, database_url=url, secret_keys=(key,), sweep_seconds=0.2, lease_seconds=5)
make_engine(settings, "orchestration", Database(url, pool_size=10), Ringer(make_celery(settings)), 4).start()
threading.Event().wait(60)
"""


@pytest.mark.parametrize(("kind", "again"), [("strict", ["s3"]), ("relaxed", ["s0", "s1", "s2", "s3"])])
def test_a_killed_process_leaves_a_run_that_ends_with_each_effect_once_by_its_key(
    api: ApiClient, settings: Settings, database: Database, eventually: Eventually, kind: str, again: list[str]
) -> None:
    with Receiver() as receiver:
        assert api.post("/services", {"name": "svc", "version": "1.0.0", "endpoint": receiver.url}).status_code == 201
        definition = {"flow": "sequential", "durability": kind, "steps": calls(6)}
        body = {"name": "w", "version": "1.0.0", "definition": definition}
        assert api.post("/orchestration/workflows", body).status_code == 201
        started = api.post("/orchestration/execute", {"workflowName": "w", "initialContext": {}})
        assert started.status_code == 202, started.json
        command = [sys.executable, "-c", _WORKER, database.url, settings.secret_keys[0]]
        worker = subprocess.Popen(command)

        def kill_at_the_fourth(hit: Hit) -> Reply:
            if hit.key == f"{started.json['executionId']}:s3" and worker.poll() is None:
                os.kill(worker.pid, signal.SIGKILL)
                worker.wait(10)
            return Reply(body=b"{}")

        receiver.answer = kill_at_the_fourth
        assert worker.wait(60) == -signal.SIGKILL
        with database.cursor() as cursor:
            cursor.execute("update worker set beat_until = now() - interval '1 s' where dead_at is null")
        path = f"/orchestration/executions/{started.json['executionId']}"
        successor = subprocess.Popen(command)
        try:
            eventually(lambda: api.get(path).json["status"] == "completed", seconds=30)
        finally:
            successor.kill()
            successor.wait(10)
        counts = Counter((hit.key or "").split(":", 1)[1] for hit in receiver.hits)
        assert [step for step, count in counts.items() if count == 2] == again
        assert sorted(counts) == [f"s{n}" for n in range(6)]
