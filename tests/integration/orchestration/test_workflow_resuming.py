"""Runs that stop and go on: by a retry, a pause, a cancel, or because their retries are used up."""

from __future__ import annotations

from typing import Any

import pytest

from esb_workers.orchestration.world import Answer
from esb_workers.store import control
from tests.support.steps import log
from tests.support.workflows import Bench, down, service


def steer(bench: Bench, action: str, id_: str) -> str | None:
    args = (None, False, "{}") if action == "cancel" else ("{}",)
    with bench.database.cursor() as cursor:
        return control.act(cursor, action, id_, *args)


def test_a_timed_out_run_can_be_retried_at_the_step_it_was_at(bench: Bench) -> None:
    id_ = bench.start(
        bench.define(
            [service("a"), {"id": "w", "type": "wait", "config": {"duration": 3_600_000}}],
            flow="sequential",
            timeout=50,
        )
    )
    bench.settle()
    assert bench.execution(id_)["status"] == "timed_out"
    assert steer(bench, "retry", id_) == "ok"
    bench.pump()
    assert bench.execution(id_)["status"] == "open"
    assert [c.path for c in bench.services.calls] == ["op"], "a completed step is not done again"


def test_a_failed_branch_is_run_again_by_a_retry(bench: Bench) -> None:
    bench.services.replies["bad"] = [down(400, retryable=False), Answer(200, {"now": "well"})]
    branches = [{"name": "l", "steps": [service("x", "bad")]}, {"name": "r", "steps": [service("y", "good")]}]
    id_ = bench.start(
        bench.define([{"id": "p", "type": "parallel", "config": {"branches": branches, "resultPath": "r"}}])
    )
    bench.settle()
    assert bench.execution(id_)["status"] == "failed"
    assert steer(bench, "retry", id_) == "ok"
    bench.settle()
    assert bench.execution(id_)["output"] == {"r": {"l": {"now": "well"}, "r": {}}}


def test_a_compensation_that_failed_goes_on_by_a_retry(bench: Bench) -> None:
    well = False

    def reply(request: Any) -> Any:
        if request.path == "c" or (request.path == "undo" and not well):
            return down(400, retryable=False)
        return Answer(200, {})

    bench.services.on_call = reply
    undo = {"type": "service_call", "config": {"serviceName": "svc", "method": "undo"}}
    steps = [service("a", method="a", compensate=undo), service("c", method="c")]
    id_ = bench.start(bench.define(steps, flow="sequential", errorHandling={"onError": "compensate"}))
    bench.settle()
    assert bench.execution(id_)["status"] == "failed"
    well = True
    assert steer(bench, "retry", id_) == "ok"
    bench.settle()
    assert bench.execution(id_)["status"] == "compensated"
    assert [c.path for c in bench.services.calls] == ["a", "c", "undo", "undo"]


@pytest.mark.parametrize("action", ["pause", "cancel"])
def test_branches_stop_with_their_run(bench: Bench, action: str) -> None:
    """Pause or cancel while one branch waits, one is ready and one is in a call."""
    branches = [
        {"name": "waits", "steps": [{"id": "w", "type": "wait", "config": {"duration": 200}}, service("wx", "w")]},
        {"name": "calls", "steps": [service("c", "c"), service("cx", "cx")]},
        {"name": "ready", "steps": [service("r", "r")]},
    ]
    id_ = bench.start(
        bench.define([{"id": "p", "type": "parallel", "config": {"branches": branches, "resultPath": "out"}}])
    )

    def reply(request: Any) -> Any:
        if request.service == "c":
            assert steer(bench, action, id_) == "ok"
        return Answer(200, {})

    bench.services.on_call = reply
    bench.settle()
    called = {c.service for c in bench.services.calls}
    assert "cx" not in called and "w" not in called
    assert "step.completed p[calls]/c" in bench.types(id_), "the call under way stands"
    if action == "cancel":
        assert bench.execution(id_)["status"] == "cancelled"
        assert bench.query("select count(*) from job") == [(0,)]
        return
    assert bench.execution(id_)["status"] == "paused"
    assert {state for (state,) in bench.query("select state from job")} == {"p"}
    assert steer(bench, "resume", id_) == "ok"
    bench.settle()
    assert bench.execution(id_)["status"] == "completed"
    assert sorted(c.service for c in bench.services.calls) == ["c", "cx", "r", "w"]


@pytest.mark.parametrize("then", [[], [service("last", "last")]], ids=["the end", "a call"])
@pytest.mark.parametrize("action", ["pause", "cancel"])
def test_the_call_under_way_ends_and_nothing_after_it_is_done(bench: Bench, action: str, then: list[Any]) -> None:
    steps = [service("c", "c"), {"id": "t", "type": "transform", "config": {"output": {"x": 1}}}, *then]
    id_ = bench.start(bench.define(steps, flow="sequential"))

    def reply(request: Any) -> Any:
        if request.service == "c":
            assert steer(bench, action, id_) == "ok"
        return Answer(200, {})

    bench.services.on_call = reply
    bench.settle()
    types = bench.types(id_)
    assert "step.completed c" in types
    assert "step.completed t" not in types
    if action == "pause":
        assert steer(bench, "resume", id_) == "ok"
        bench.settle()
        assert bench.execution(id_)["context"] == {"x": 1}
        assert bench.types(id_).count("run.started") == 1
    assert [c.service for c in bench.services.calls] == ["c", *(["last"] if then and action == "pause" else [])]


# --- retries that are used up ----------------------------------------------------------------------------


def test_a_run_whose_retries_are_used_up_is_paused_if_it_says_so_and_a_resume_tries_again(bench: Bench) -> None:
    bench.services.replies["svc"] = [down(), down(), down()]
    handling = {"onExhausted": "pause", "retryPolicy": {"maxRetries": 1, "initialDelay": 1}}
    paused = bench.run([service("a"), log("b")], flow="sequential", errorHandling=handling)
    assert paused["status"] == "paused"
    assert bench.types(paused["id"])[-2:] == ["step.exhausted a", "run.paused"]
    assert bench.events(paused["id"])[-1][2]["error"]["class"] == "HttpStatus.503"
    with bench.database.cursor() as cursor:
        assert control.act(cursor, "resume", paused["id"], "{}") == "ok"
    bench.settle()  # the budget is fresh: one more failure, and then success
    assert bench.execution(paused["id"])["status"] == "completed"
    assert len(bench.services.calls) == 4
    assert len({call.idempotency_key for call in bench.services.calls}) == 1


def test_a_branch_that_has_used_up_its_retries_pauses_the_run_and_its_brothers(bench: Bench) -> None:
    branches = [
        {"name": "bad", "steps": [service("x", "bad")]},
        {"name": "slow", "steps": [{"id": "w", "type": "wait", "config": {"duration": 3_600_000}}]},
    ]
    bench.services.replies["bad"] = [down()]
    steps = [{"id": "p", "type": "parallel", "config": {"branches": branches, "join": "any"}}]
    paused = bench.run(steps, errorHandling={"onExhausted": "pause"})
    assert paused["status"] == "paused"
    assert bench.query("select distinct state, control from job") == [("p", "p")]
    with bench.database.cursor() as cursor:
        assert control.act(cursor, "resume", paused["id"], "{}") == "ok"
    bench.settle()
    assert bench.execution(paused["id"])["status"] == "completed"


def test_what_is_caught_or_would_never_succeed_does_not_pause_a_run(bench: Bench) -> None:
    handling = {"onExhausted": "pause"}
    bench.services.replies["svc"] = [down(), down(404, retryable=False)]
    caught = bench.run([service("a", onFailure="b"), log("b")], errorHandling=handling)
    assert caught["status"] == "completed"
    assert bench.run([service("a")], errorHandling=handling)["status"] == "failed"


def test_a_pause_for_used_up_retries_loses_against_a_worker_that_took_over(bench: Bench) -> None:
    id_ = bench.start(bench.define([service("a")], errorHandling={"onExhausted": "pause"}))

    def lost(_: Any) -> Any:
        bench.lose_leases()
        bench.services.on_call = lambda request: None
        bench.pump()
        return down()

    bench.services.on_call = lost
    bench.pump()
    assert bench.execution(id_)["status"] == "completed"
