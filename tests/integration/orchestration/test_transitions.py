"""Transitions of several runs in one statement: each stands or falls for itself."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from esb_workers.store import executions
from esb_workers.store.executions import EventRow, StrandKey, Transition
from tests.support.workflows import Bench, service

SET = {"id": "s", "type": "set", "config": {"variables": {"x": "${1}"}}}


def move(key: StrandKey, n: int, *types: str, stand: int | None = None) -> Transition:
    events = [EventRow(type_, "s", n, None, '{"by": "test"}') for type_ in types]
    return Transition(key, n, events, len(events) if stand is None else stand, 30.0, None)


def held(bench: Bench, count: int) -> list[StrandKey]:
    workflow = bench.define([SET])
    for _ in range(count):
        bench.start(workflow)
    return [StrandKey(claim.id, claim.attempt) for claim in bench.claim()]


def test_a_strand_that_was_taken_over_is_fenced_off_and_the_others_go_on(bench: Bench) -> None:
    first, lost, last = held(bench, 3)
    with bench.database.cursor() as cursor:
        cursor.execute("update job set attempt = attempt + 1 where id = %s", (lost.job,))
        signs = executions.steps(cursor, [move(key, 1, "run.started") for key in (first, lost, last)])
    assert [sign is not None for sign in signs] == [True, False, True]
    assert [len(bench.events(key.job)) for key in (first, lost, last)] == [1, 0, 1]


def test_what_was_about_to_begin_does_not_begin_once_somebody_intervenes(bench: Bench) -> None:
    wanted, free = held(bench, 2)
    with bench.database.cursor() as cursor:
        cursor.execute("update job set control = 'c', inbox = inbox + 1 where id = %s", (wanted.job,))
        told = [move(key, 1, "step.completed", "step.started", stand=1) for key in (wanted, free)]
        signs = executions.steps(cursor, told)
    assert [(sign.control, sign.inbox) for sign in signs if sign] == [("c", 1), (None, 0)]
    assert bench.types(wanted.job) == ["step.completed s"]
    assert bench.types(free.job) == ["step.completed s", "step.started s"]


def test_one_statement_and_another_journal_alike(bench: Bench) -> None:
    alone, together = held(bench, 2)
    with bench.database.cursor() as cursor:
        executions.step(cursor, move(alone, 1, "step.started", "step.completed"))
        executions.steps(cursor, [move(together, 1, "step.started", "step.completed")])
    columns = "select n, type, path, visit, iteration, data from event where execution_id = %s order by seq"
    assert bench.query(columns, alone.job) == bench.query(columns, together.job)


def test_runs_of_many_threads_share_their_commits_and_lose_nothing(bench: Bench) -> None:
    workflow = bench.define([service(f"s{n}") for n in range(5)], flow="sequential")
    runs = [bench.start(workflow) for _ in range(24)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda claim: bench.runner.run(claim.id, claim.attempt), bench.claim()))
    assert {bench.execution(run)["status"] for run in runs} == {"completed"}
    assert {len(bench.events(run)) for run in runs} == {len(bench.events(runs[0]))}
    assert len({call.idempotency_key for call in bench.services.calls}) == 24 * 5
