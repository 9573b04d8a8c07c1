"""Branches, items and rounds."""

from __future__ import annotations

from typing import Any

from esb_workers.orchestration.world import Answer
from tests.support.steps import log
from tests.support.workflows import Bench, down, service


def test_branches_run_on_copies_and_are_joined_by_name(bench: Bench) -> None:
    branches = [
        {
            "name": "left",
            "steps": [service("l", "left"), {"id": "l2", "type": "set", "config": {"variables": {"seen": "left"}}}],
        },
        {"name": "right", "steps": [service("r", "right")]},
    ]
    bench.services.replies["right"] = [Answer(200, {"r": 1})]
    done = bench.run(
        [{"id": "p", "type": "parallel", "config": {"branches": branches, "resultPath": "both"}}], {"seen": "no"}
    )
    assert done["status"] == "completed"
    assert done["output"] == {"seen": "no", "both": {"left": {"seen": "left"}, "right": {"r": 1}}}
    assert sorted(c.idempotency_key.split(":")[1] for c in bench.services.calls) == ["p[left]/l", "p[right]/r"]


def test_a_branch_that_fails_fails_the_step_which_can_catch_it(bench: Bench) -> None:
    bench.services.replies["bad"] = [down(409, retryable=False)]
    branches = [{"name": "a", "steps": [service("x", "bad")]}, {"name": "b", "steps": [log("y")]}]
    done = bench.run([
        {"id": "p", "type": "parallel", "config": {"branches": branches}, "catch": [{"errors": ["HttpStatus.4xx"], "next": "h", "resultPath": "why"}]},
        {"id": "h", "type": "succeed", "config": {"output": "${error.class + ' in ' + why.step}"}},
    ])  # fmt: skip
    assert (done["status"], done["output"]) == ("completed", "HttpStatus.409 in p[a]/x")


def test_any_of_the_branches_is_enough_and_the_others_are_cancelled(bench: Bench) -> None:
    branches = [
        {
            "name": "slow",
            "steps": [{"id": "w", "type": "wait", "config": {"duration": 3_600_000}}, service("late", "never")],
        },
        {"name": "fast", "steps": [service("f", "fast")]},
    ]
    bench.services.replies["fast"] = [Answer(200, {"won": True})]
    done = bench.run(
        [{"id": "p", "type": "parallel", "config": {"branches": branches, "join": "any", "resultPath": "r"}}]
    )
    assert done["output"] == {"r": {"fast": {"won": True}}}
    assert bench.query("select count(*) from job") == [(0,)]


def test_foreach_answers_in_item_order(bench: Bench) -> None:
    bench.services.on_call = lambda r: Answer(200, {"got": r.body.decode()})
    body = [
        service("q", config={"payload": {"i": "${index}", "x": "${item}"}}),
        {"id": "t", "type": "transform", "config": {"output": "${item * 10}"}},
    ]
    done = bench.run(
        [
            {
                "id": "f",
                "type": "foreach",
                "config": {"items": "${xs}", "steps": body, "maxConcurrency": 3, "resultPath": "ys"},
            }
        ],
        {"xs": list(range(20))},
    )
    assert done["status"] == "completed"
    assert done["context"]["ys"] == [i * 10 for i in range(20)]
    assert {c.idempotency_key for c in bench.services.calls} == {f"{done['id']}:f[{i}]/q" for i in range(20)}


def test_a_tolerated_failure_in_one_runner_does_not_end_the_others(bench: Bench) -> None:
    item = [service("q", config={"payload": {"x": "${item}"}}), {"id": "w", "type": "wait", "config": {"duration": 5}}]
    config = {"items": [1, 2], "steps": item, "maxConcurrency": 2, "toleratedFailures": 1, "resultPath": "ys"}
    bench.services.on_call = lambda r: down(400, retryable=False) if b":1" in r.body else Answer(200, {})
    done = bench.run([{"id": "f", "type": "foreach", "config": config}])
    assert done["status"] == "completed"
    assert [type(y) for y in done["context"]["ys"]] == [dict, type(None)]


def test_foreach_tolerates_as_many_failures_as_it_says(bench: Bench) -> None:
    bench.services.on_call = lambda r: down(400, retryable=False) if b":3" in r.body else Answer(200, {})

    def steps(tolerated: Any) -> list[Any]:
        body = [
            service("q", config={"payload": {"x": "${item}"}}),
            {"id": "t", "type": "transform", "config": {"output": "${item}"}},
        ]
        return [
            {
                "id": "f",
                "type": "foreach",
                "config": {"items": [1, 2, 3, 4], "steps": body, "toleratedFailures": tolerated, "resultPath": "ys"},
            }
        ]

    good = bench.run(steps(1))
    assert good["context"]["ys"][:2] == [1, 2] and good["context"]["ys"][2]["error"]["class"] == "HttpStatus.400"
    bad = bench.run(steps("24%"))
    assert (bad["status"], bad["error"]["class"]) == ("failed", "ToleranceExceeded")
    assert bench.query("select count(*) from job") == [(0,)]


def test_a_loop_works_on_the_surrounding_context(bench: Bench) -> None:
    body = [{"id": "inc", "type": "set", "config": {"variables": {"n": "${n + 1}"}}}]
    done = bench.run(
        [{"id": "l", "type": "loop", "config": {"while": "n < 4", "steps": body}}, log("z")],
        {"n": 0},
        flow="sequential",
    )
    assert (done["status"], done["output"]["n"]) == ("completed", 4)
    done = bench.run(
        [{"id": "l", "type": "loop", "config": {"until": "n >= 4", "steps": body, "maxIterations": 2}}], {"n": 0}
    )
    assert (done["status"], done["error"]["class"]) == ("failed", "LoopLimit")


def test_rounds_of_calls_have_keys_of_their_own(bench: Bench) -> None:
    body = [service("q"), {"id": "inc", "type": "set", "config": {"variables": {"n": "${n + 1}"}}}]
    done = bench.run([{"id": "l", "type": "loop", "config": {"until": "n == 120", "steps": body}}], {"n": 0})
    assert done["output"]["n"] == 120
    assert len({c.idempotency_key for c in bench.services.calls}) == 120
