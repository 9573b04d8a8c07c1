"""How runs start: business keys, limits on how many and how fast, and what becomes of one too many."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from esb_workers.store import control, starts
from esb_workers.store.ids import new_id
from tests.support.api import ApiClient
from tests.support.workflows import Bench, service

SLEEP = {"id": "w", "type": "wait", "config": {"duration": 3_600_000}}


def cancel(bench: Bench, id_: str) -> None:
    with bench.database.cursor() as cursor:
        assert control.act(cursor, "cancel", id_, None, False, "{}") == "ok"


def states(bench: Bench) -> list[str]:
    return [row[0] for row in bench.query("select j.state from job j order by j.seq")]


# --- business keys ---------------------------------------------------------------------------------------


def test_a_business_key_is_reused_as_its_policy_says(bench: Bench) -> None:
    workflow = bench.define([SLEEP])
    first = bench.start(workflow, business_key="k")
    for reuse, outcome in (("allow_after_end", "busy"), ("reject", "busy"), ("return_existing", "existing")):
        assert bench.begin(workflow, business_key="k", reuse=reuse) == (outcome, first)
    cancel(bench, first)
    assert bench.begin(workflow, business_key="k", reuse="reject") == ("busy", first)
    assert bench.begin(workflow, business_key="k", reuse="return_existing") == ("existing", first)
    second = bench.start(workflow, business_key="k")
    assert bench.begin(workflow, business_key="k", reuse="return_existing") == ("existing", second)
    assert bench.begin(workflow, business_key="new", reuse="reject").outcome == "ok"


def test_of_many_starts_with_one_key_at_once_one_wins_and_all_get_it(bench: Bench) -> None:
    workflow = bench.define([SLEEP])
    found: list[Any] = []
    threads = [
        threading.Thread(target=lambda: found.append(bench.begin(workflow, business_key="k", reuse="return_existing")))
        for _ in range(6)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert sorted(outcome for outcome, _ in found) == ["existing"] * 5 + ["ok"]
    assert len({id_ for _, id_ in found}) == 1


def test_the_existing_run_is_answered_with_200(api: ApiClient) -> None:
    made = api.post("/orchestration/workflows", {"name": "w", "version": "1.0.0", "definition": {"steps": [SLEEP]}})
    body = {"workflowId": made.json["id"], "businessKey": "k", "businessKeyReuse": "return_existing"}
    first = api.post("/orchestration/execute", body)
    assert first.status_code == 202
    again = api.post("/orchestration/execute", body)
    assert (again.status_code, again.json["executionId"]) == (200, first.json["executionId"])
    del body["businessKey"]
    assert api.post("/orchestration/execute", body).status_code == 422


def test_an_existing_run_takes_no_place_of_the_quota(api: ApiClient) -> None:
    made = api.post("/orchestration/workflows", {"name": "w", "version": "1.0.0", "definition": {"steps": [SLEEP]}})
    limited = {"name": "c", "allowedServices": ["*"], "rateLimits": {"requestsPerDay": 2}}
    client = api.with_key(api.post("/clients", limited).json["apiKey"])
    body = {"workflowId": made.json["id"], "businessKey": "k", "businessKeyReuse": "return_existing"}
    answers = [client.post("/orchestration/execute", body) for _ in range(4)]
    assert [answer.status_code for answer in answers] == [202, 200, 200, 200]
    assert [client.post("/orchestration/execute", {**body, "businessKey": k}).status_code for k in "ab"] == [202, 429]


# --- how many at once ------------------------------------------------------------------------------------


def test_starts_over_the_limit_wait_and_go_when_one_ends(bench: Bench) -> None:
    workflow = bench.define([SLEEP], concurrency={"limit": 2})
    ids = [bench.start(workflow) for _ in range(4)]
    assert states(bench) == ["r", "r", "h", "h"]
    bench.pump()
    assert states(bench) == ["s", "s", "h", "h"]
    cancel(bench, ids[0])
    assert states(bench) == ["s", "r", "h"]
    cancel(bench, ids[3])  # a held one takes no place
    assert states(bench) == ["s", "r"]


def test_a_run_that_completes_lets_the_next_one_go(bench: Bench) -> None:
    workflow = bench.define([service("a")], concurrency={"limit": 1})
    ids = [bench.start(workflow) for _ in range(3)]
    bench.settle()
    assert [bench.execution(id_)["status"] for id_ in ids] == ["completed"] * 3
    ends = bench.query(
        "select e.id from execution e order by (select max(seq) from event v where v.execution_id = e.id)"
    )
    assert [row[0] for row in ends] == ids


def test_the_key_says_which_runs_count_together(bench: Bench) -> None:
    workflow = bench.define([SLEEP], concurrency={"key": "customer.id", "limit": 1})
    for customer in (1, 1, 2):
        bench.start(workflow, {"customer": {"id": customer}})
    assert states(bench) == ["r", "h", "r"]


def test_a_start_over_the_limit_is_refused_where_the_workflow_says_so(bench: Bench, api: ApiClient) -> None:
    workflow = bench.define([SLEEP], concurrency={"key": "k", "limit": 1, "onLimit": "reject"})
    start = {"workflowId": workflow, "initialContext": {"k": "x"}, "businessKey": "b"}
    assert api.post("/orchestration/execute", start).status_code == 202
    refused = api.post("/orchestration/execute", start | {"businessKey": "c"})
    assert (refused.status_code, refused.json["code"]) == (409, "concurrency_limit")
    assert bench.query("select count(*) from business_key") == [(1,)]
    bad = api.post("/orchestration/execute", {"workflowId": workflow})
    assert (bad.status_code, bad.json["errors"][0]["path"]) == (422, "initialContext")


def test_the_newest_takes_the_place_of_the_oldest(bench: Bench) -> None:
    workflow = bench.define([SLEEP], concurrency={"limit": 2, "onLimit": "cancel_oldest"})
    ids = [bench.start(workflow) for _ in range(4)]
    assert [bench.execution(id_)["status"] for id_ in ids] == ["cancelled", "cancelled", "open", "open"]
    assert states(bench) == ["r", "r"]


def test_limits_hold_for_runs_that_runs_start(bench: Bench) -> None:
    bench.define([service("c")], name="child", concurrency={"limit": 1})
    sub = {"id": "s", "type": "sub_workflow", "config": {"workflowName": "child"}}
    parents = [bench.start(bench.define([sub])) for _ in range(3)]
    bench.settle()
    assert [bench.execution(id_)["status"] for id_ in parents] == ["completed"] * 3


@pytest.mark.parametrize("action", ["pause", "cancel"])
def test_a_held_run_can_be_paused_and_cancelled(bench: Bench, action: str) -> None:
    workflow = bench.define([SLEEP], concurrency={"limit": 1})
    first, held = bench.start(workflow), bench.start(workflow)
    with bench.database.cursor() as cursor:
        args = (None, False, "{}") if action == "cancel" else ("{}",)
        assert control.act(cursor, action, held, *args) == "ok"
    cancel(bench, first)
    bench.pump()
    if action == "pause":
        assert bench.types(held) == ["run.paused"]
        with bench.database.cursor() as cursor:
            assert control.act(cursor, "resume", held, "{}") == "ok"
        bench.pump()
        assert "step.waiting w" in bench.types(held)


def test_a_retried_run_takes_its_turn_again(bench: Bench) -> None:
    workflow = bench.define(
        [{"id": "s", "type": "switch", "config": {"cases": [{"when": "f", "next": "x"}], "default": "w"}},
         {"id": "x", "type": "fail", "config": {"error": "X", "message": "x"}}, SLEEP],
        concurrency={"limit": 1},
    )  # fmt: skip
    failed = bench.start(workflow, {"f": True})
    bench.settle()
    other = bench.start(workflow, {"f": False})
    bench.pump()
    with bench.database.cursor() as cursor:
        assert control.act(cursor, "retry", failed, "{}") == "ok"
    assert states(bench) == ["s", "h"]
    cancel(bench, other)
    assert states(bench) == ["r"]


def test_many_starts_and_ends_at_once_never_exceed_the_limit(bench: Bench) -> None:
    workflow = bench.define([service("a")], concurrency={"limit": 3})
    most = 0
    lock = threading.Lock()
    stop = threading.Event()

    def watch() -> None:
        nonlocal most
        while not stop.is_set():
            (seen,) = bench.query("select count(*) from job where state <> 'h'")[0]
            with lock:
                most = max(most, seen)

    def begin() -> None:
        for _ in range(8):
            bench.start(workflow)

    def work() -> None:
        runner = bench.new_runner()
        while not stop.is_set():
            for claim in bench.claim(2):
                runner.run(claim.id, claim.attempt)

    starters = [threading.Thread(target=begin) for _ in range(3)]
    others = [threading.Thread(target=target) for target in (watch, work, work)]
    for thread in starters + others:
        thread.start()
    for thread in starters:
        thread.join(20)
    for _ in range(200):
        if bench.query("select count(*) from execution where status = 'open'") == [(0,)]:
            break
        stop.wait(0.05)
    stop.set()
    for thread in others:
        thread.join(10)
    assert bench.query("select count(*), count(*) filter (where status = 'completed') from execution") == [(24, 24)]
    assert 1 <= most <= 3


def test_a_held_run_that_was_passed_by_is_found(bench: Bench) -> None:
    workflow = bench.define([SLEEP], concurrency={"limit": 1})
    first = bench.start(workflow)
    bench.start(workflow)
    bench.query("delete from job where id = %s returning 1", first)  # as no code of ours does
    with bench.database.cursor() as cursor:
        assert starts.admit(cursor) == 1
    assert states(bench) == ["r"]


# --- how fast, and for what ------------------------------------------------------------------------------


def test_starts_beyond_the_rate_begin_later_in_order(bench: Bench) -> None:
    workflow = bench.define([SLEEP], ratePerSecond=4)
    for _ in range(3):
        bench.start(workflow)
    gaps = bench.query(
        "select state, extract(epoch from run_at - min(created_at) over ())::float8 from job order by seq"
    )
    assert [state for state, _ in gaps] == ["r", "s", "s"]
    assert gaps[1][1] == pytest.approx(0.25, abs=0.1) and gaps[2][1] == pytest.approx(0.5, abs=0.1)


def test_a_delivery_starts_one_run_however_often_it_is_tried(bench: Bench) -> None:
    workflow = bench.define([SLEEP])
    delivery = new_id()
    first = bench.start(workflow, delivery=delivery)
    assert bench.begin(workflow, delivery=delivery) == ("existing", first)
