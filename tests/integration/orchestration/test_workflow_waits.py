"""What runs wait for: services, signals, other runs, and how long."""

from __future__ import annotations

from typing import Any

import pytest

from esb_workers.orchestration.control import cancel_orphans
from esb_workers.orchestration.world import Answer, Held
from esb_workers.store import control
from tests.support.steps import log
from tests.support.workflows import Bench, service


def test_a_held_service_lets_the_run_wait(bench: Bench) -> None:
    bench.services.replies["svc"] = [Held("maintenance", 50), Held("maintenance", 50), Answer(200, {"a": 1})]
    id_ = bench.start(bench.define([service("a")]))
    bench.pump()
    assert bench.query("select state from job where id = %s", id_) == [("s",)]
    bench.settle()
    assert bench.execution(id_)["output"] == {"a": 1}
    assert [d["attempt"] for t, _, d in bench.events(id_) if t == "step.started"] == [1]


def test_a_held_service_is_waited_for_until_the_steps_timeout(bench: Bench) -> None:
    bench.services.on_call = lambda r: Held("maintenance", 30)
    done = bench.run([service("a", timeout=80)])
    assert (done["status"], done["error"]["class"]) == ("failed", "Timeout")


def test_a_run_that_takes_too_long_is_timed_out(bench: Bench) -> None:
    done = bench.run([{"id": "w", "type": "wait", "config": {"duration": 3_600_000}}], timeout=100)
    assert (done["status"], done["error"]["class"]) == ("timed_out", "Timeout")


def test_a_signal_wakes_the_step_that_waits_for_it(bench: Bench) -> None:

    steps = [{"id": "w", "type": "wait_for_signal", "config": {"signal": "ok", "resultPath": "said"}}]
    id_ = bench.start(bench.define(steps))
    bench.pump()
    assert bench.query("select state from job") == [("p",)]
    with bench.database.cursor() as cursor:
        assert control.act(cursor, "signal", id_, "ok", '{"by": "ann"}') == "ok"
    bench.pump()
    assert bench.execution(id_)["output"] == {"said": {"by": "ann"}}


def test_a_signal_that_came_early_is_kept(bench: Bench) -> None:

    steps = [{"id": "w", "type": "wait_for_signal", "config": {"signal": "ok", "resultPath": "said"}}]
    id_ = bench.start(bench.define(steps))
    with bench.database.cursor() as cursor:
        assert control.act(cursor, "signal", id_, "ok", "7") == "ok"
    bench.pump()
    assert bench.execution(id_)["output"] == {"said": 7}


def test_a_signal_that_never_comes(bench: Bench) -> None:
    wait = {"signal": "ok", "timeout": 40}
    done = bench.run([{"id": "w", "type": "wait_for_signal", "config": wait}])
    assert (done["status"], done["error"]["class"]) == ("failed", "Timeout")
    done = bench.run([{"id": "w", "type": "wait_for_signal", "config": {**wait, "onTimeout": "late"}}, log("late")])
    assert "step.completed late" in bench.types(done["id"])


def test_a_sub_workflow_answers_its_parent(bench: Bench) -> None:
    bench.define(
        [{"id": "t", "type": "transform", "config": {"output": {"double": "${n * 2}"}}}],
        name="child",
        output="${double}",
    )
    done = bench.run(
        [
            {
                "id": "s",
                "type": "sub_workflow",
                "config": {"workflowName": "child", "input": {"n": "${x}"}, "resultPath": "r"},
            }
        ],
        {"x": 21},
    )
    assert (done["status"], done["output"]) == ("completed", {"x": 21, "r": 42})


def test_a_sub_workflow_that_fails_fails_its_step(bench: Bench) -> None:
    bench.define([{"id": "f", "type": "fail", "config": {"error": "Nope"}}], name="child")
    done = bench.run([{"id": "s", "type": "sub_workflow", "config": {"workflowName": "child"}}])
    assert (done["status"], done["error"]["class"]) == ("failed", "Nope")


@pytest.mark.parametrize(
    "step",
    [
        {"type": "wait", "config": {"duration": 3_600_000}},
        {"type": "wait_for_signal", "config": {"signal": "never"}},
        {
            "type": "parallel",
            "config": {
                "branches": [{"name": "l", "steps": [{"id": "q", "type": "wait", "config": {"duration": 9_999_999}}]}]
            },
        },
        {
            "type": "loop",
            "config": {"while": "true", "steps": [{"id": "q", "type": "wait", "config": {"duration": 9_999_999}}]},
        },
    ],
    ids=lambda step: step["type"],
)
def test_a_step_that_takes_too_long_fails(bench: Bench, step: dict[str, Any]) -> None:
    done = bench.run([{"id": "s", "timeout": 60, **step, "onFailure": "h"}, log("h")])
    assert done["status"] == "completed"
    (error,) = [d["error"] for t, _, d in bench.events(done["id"]) if t == "step.failed"]
    assert (error["class"], error["step"]) == ("Timeout", "s")
    assert bench.query("select count(*) from job") == [(0,)]


@pytest.mark.parametrize("inside", [None, "loop", "parallel"])
def test_a_sub_workflow_that_takes_too_long_is_cancelled(bench: Bench, inside: str | None) -> None:
    bench.define([{"id": "w", "type": "wait", "config": {"duration": 3_600_000}}], name="child")
    step = {"id": "s", "type": "sub_workflow", "config": {"workflowName": "child"}}
    if inside == "loop":
        step = {"id": "l", "type": "loop", "config": {"while": "true", "steps": [step]}}
    elif inside == "parallel":
        step = {"id": "p", "type": "parallel", "config": {"branches": [{"name": "b", "steps": [step]}]}}
    after = {"id": "x", "type": "wait", "config": {"duration": 3_600_000}}
    bench.start(bench.define([{**step, "timeout": 60, "onFailure": "x"}, after]))
    bench.settle()
    assert cancel_orphans(bench.database) == 1
    statuses = bench.query(
        "select e.status from execution e join workflow w on w.id = e.workflow_id where w.name = 'child'"
    )
    assert statuses == [("cancelled",)]
    assert bench.query("select count(*) from execution where status = 'open'") == [(1,)], "its parent goes on"
