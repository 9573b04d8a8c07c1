"""Every step type, on a real database."""

from __future__ import annotations

from typing import Any

import pytest

from esb_workers.orchestration.control import cancel_orphans
from esb_workers.orchestration.world import Answer, Held
from esb_workers.registry.catalogue import MessageTypes, TypeValues
from esb_workers.store import control
from tests.support.workflows import Bench, down, service


def log(id_: str, **over: Any) -> dict[str, Any]:
    return {"id": id_, "type": "log", "config": {"message": f"at {id_}"}, **over}


def test_the_answer_of_a_call_is_merged_and_used_by_the_next(bench: Bench) -> None:
    bench.services.replies["users"] = [Answer(200, {"userId": "u-1"})]
    done = bench.run(
        [
            service("create", "users", "createUser", config={"payload": {"email": "${email}"}}, onSuccess="greet"),
            service("greet", "mail", "send", config={"payload": {"userId": "${userId}"}}),
        ],
        {"email": "a@b.c"},
    )
    assert done["status"] == "completed"
    assert bench.services.bodies() == [{"email": "a@b.c"}, {"userId": "u-1"}]
    assert done["output"] == {"email": "a@b.c", "userId": "u-1"}
    assert [c.idempotency_key for c in bench.services.calls] == [f"{done['id']}:create", f"{done['id']}:greet"]


def test_a_failing_call_is_tried_again_with_exponential_delays(bench: Bench) -> None:
    bench.services.replies["svc"] = [down(), down(), Answer(200, {"ok": True})]
    done = bench.run(
        [service("a")],
        errorHandling={
            "retryPolicy": {"maxRetries": 3, "backoffStrategy": "exponential", "initialDelay": 20, "jitter": 0}
        },
    )
    assert done["status"] == "completed"
    delays = [d["delayMs"] for t, _, d in bench.events(done["id"]) if t == "step.retrying"]
    assert delays == [20, 40]
    assert len({c.idempotency_key for c in bench.services.calls}) == 1


def test_a_call_that_keeps_failing_fails_the_run_with_its_error(bench: Bench) -> None:
    bench.services.replies["svc"] = [down(), down()]
    done = bench.run([service("a", retryPolicy={"maxRetries": 1, "initialDelay": 1})])
    assert done["status"] == "failed"
    assert done["error"] == {
        "class": "HttpStatus.503", "message": "answered 503", "step": "a", "attempts": 2, "statusCode": 503, "body": None,
    }  # fmt: skip


def test_a_switch_takes_the_first_case_that_holds(bench: Bench) -> None:
    steps = [
        {"id": "s", "type": "switch", "config": {"cases": [{"when": "n > 10", "next": "big"}, {"when": "n > 5", "next": "mid"}], "default": "small"}},
        *[{"id": x, "type": "set", "config": {"variables": {"size": x}}} for x in ("big", "mid", "small")],
    ]  # fmt: skip
    assert [bench.run(steps, {"n": n})["output"]["size"] for n in (11, 6, 1)] == ["big", "mid", "small"]


def test_a_switch_whose_condition_is_no_boolean_fails(bench: Bench) -> None:
    done = bench.run(
        [{"id": "s", "type": "switch", "config": {"cases": [{"when": "n", "next": "x"}]}, "onSuccess": "x"}, log("x")],
        {"n": 1},
    )
    assert (done["status"], done["error"]["class"]) == ("failed", "ExpressionError")


def test_transform_and_set_and_the_definitions_output(bench: Bench) -> None:
    done = bench.run(
        [
            {"id": "t", "type": "transform", "config": {"output": {"sum": "${a + b}"}}},
            {"id": "u", "type": "transform", "config": {"output": "${sum * 2}", "resultPath": "deep.er"}},
            {"id": "v", "type": "set", "config": {"variables": {"a": "${b}", "b": "${a}"}}},
        ],
        {"a": 1},
        flow="sequential",
        variables={"b": 2},
        output={"swapped": "${[a, b]}", "twice": "${deep.er}", "seen": "${steps['t'].output.sum}"},
    )
    assert done["output"] == {"swapped": [2, 1], "twice": 6, "seen": 3}


def test_succeed_and_fail_end_the_run(bench: Bench) -> None:
    done = bench.run([log("a"), {"id": "s", "type": "succeed", "config": {"output": "${1 + 1}"}}], flow="sequential")
    assert (done["status"], done["output"]) == ("completed", 2)
    done = bench.run(
        [{"id": "f", "type": "fail", "config": {"error": "NoStock", "message": "none of ${sku}"}}], {"sku": "x1"}
    )
    assert (done["status"], done["error"]["class"], done["error"]["message"]) == ("failed", "NoStock", "none of x1")


def test_a_step_whose_condition_is_false_is_skipped(bench: Bench) -> None:
    done = bench.run([log("a", condition="false", onSuccess="b"), log("b")])
    assert bench.types(done["id"]) == ["run.started", "step.skipped a", "step.completed b", "run.completed"]


def test_a_wait_lets_go_of_the_worker_and_goes_on_by_a_timer(bench: Bench) -> None:
    id_ = bench.start(
        bench.define([{"id": "w", "type": "wait", "config": {"duration": 150}}, log("x")], flow="sequential")
    )
    bench.pump()
    assert bench.query("select state from job where id = %s", id_) == [("s",)]
    bench.settle()
    assert bench.execution(id_)["status"] == "completed"
    assert bench.types(id_) == [
        "run.started",
        "step.started w",
        "step.waiting w",
        "step.completed w",
        "step.completed x",
        "run.completed",
    ]


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


def test_on_error_names_a_step_whose_path_sees_the_error(bench: Bench) -> None:
    bench.services.replies["svc"] = [down(500, retryable=False)]
    steps = [
        service("a"),
        service("alert", "pager", config={"payload": {"why": "${error.class}", "step": "${error.step}"}}),
    ]
    done = bench.run(steps, errorHandling={"onError": "alert"})
    assert (done["status"], done["error"]["step"]) == ("failed", "a")
    assert bench.services.bodies()[-1] == {"why": "HttpStatus.500", "step": "a"}


def test_on_error_continue_goes_on_without_an_output(bench: Bench) -> None:
    bench.services.replies["svc"] = [down(500, retryable=False)]
    done = bench.run(
        [service("a"), {"id": "t", "type": "transform", "config": {"output": {"was": "${steps['a'].output}"}}}],
        flow="sequential",
        errorHandling={"onError": "continue"},
    )
    assert (done["status"], done["output"]) == ("completed", {"was": None})


def test_completed_steps_are_undone_in_reverse_order(bench: Bench) -> None:
    bench.services.on_call = lambda r: down(500, retryable=False) if r.path == "c" else Answer(200, {"id": r.path})

    def undo(method: str) -> dict[str, Any]:
        return {
            "type": "service_call",
            "config": {"serviceName": "svc", "method": method, "payload": {"of": "${output.id}"}},
        }

    done = bench.run(
        [service("a", method="a", compensate=undo("undo-a")), service("b", method="b", compensate=undo("undo-b")), service("c", method="c")],
        flow="sequential", errorHandling={"onError": "compensate"},
    )  # fmt: skip
    assert (done["status"], done["error"]["step"]) == ("compensated", "c")
    assert [c.path for c in bench.services.calls] == ["a", "b", "c", "undo-b", "undo-a"]
    assert bench.services.bodies()[3:] == [{"of": "b"}, {"of": "a"}]
    assert bench.services.calls[3].idempotency_key == f"{done['id']}:b:compensate"


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


def test_a_cycle_with_a_wait_visits_its_steps_anew(bench: Bench) -> None:
    steps = [
        service("q", onSuccess="n"),
        {"id": "n", "type": "set", "config": {"variables": {"n": "${n + 1}"}}, "onSuccess": "s"},
        {"id": "s", "type": "switch", "config": {"cases": [{"when": "n < 3", "next": "w"}], "default": "end"}},
        {"id": "w", "type": "wait", "config": {"duration": 1}, "onSuccess": "q"},
        log("end"),
    ]
    done = bench.run(steps, {"n": 0})
    assert done["status"] == "completed"
    assert [c.idempotency_key.split(":", 1)[1] for c in bench.services.calls] == ["q", "q:1", "q:2"]


def test_a_context_has_a_limit(bench: Bench) -> None:
    bench.services.replies["svc"] = [Answer(200, {"x": "y" * 1_100_000})]
    done = bench.run([service("a")])
    assert (done["status"], done["error"]["class"]) == ("failed", "ContextTooLarge")


def test_what_a_step_replaces_no_longer_counts_towards_the_limit(bench: Bench) -> None:
    bench.services.replies["svc"] = [Answer(200, {"x": letter * 600_000}) for letter in "ab"]
    done = bench.run([service("a"), service("b")], flow="sequential")
    assert (done["status"], done["context"]["x"][:1]) == ("completed", "b")


def test_an_output_that_is_not_merged_has_the_same_limit(bench: Bench) -> None:
    bench.services.replies["svc"] = [Answer(200, ["y" * 1_100_000])]
    done = bench.run([service("a")])
    assert (done["status"], done["error"]["class"]) == ("failed", "ContextTooLarge")


def test_a_call_is_held_for_as_long_as_its_service_may_take(bench: Bench) -> None:
    bench.services.timeouts["svc"] = 1_800_000
    bench.services.replies["svc"] = [Held("maintenance", 1), Answer(200, {})]
    left: list[float] = []

    def look(request: Any) -> None:
        left.extend(row[0] for row in bench.query("select extract(epoch from lease_until - now())::float8 from job"))

    bench.services.on_call = look
    done = bench.run([service("a")])
    assert done["status"] == "completed" and len(left) == 2, "the first found the service in maintenance"
    assert min(left) > 1800


def test_a_published_message_is_accepted_once_however_often_its_step_is_tried(bench: Bench) -> None:
    config = {"messageType": "order.${kind}", "payload": {"n": "${n}"}, "headers": {"h": "${n}"}, "orderingKey": "k"}
    id_ = bench.start(
        bench.define([{"id": "p", "type": "publish", "config": config}], name="orders"), {"kind": "made", "n": 1}
    )
    (claim,) = bench.claim()
    published = bench.messages.publish

    def dies_after(message: Any) -> str:
        published(message)
        raise KeyboardInterrupt

    bench.messages.publish = dies_after  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        bench.runner.run(claim.id, claim.attempt)
    bench.messages.publish = published  # type: ignore[method-assign]
    bench.lose_leases()
    bench.settle()
    done = bench.execution(id_)
    assert (done["status"], bench.events(id_)[-2][2]["output"]) == ("completed", {"messageId": f"{id_}:p"})
    rows = bench.query("select external_id, source, type, payload, headers, correlation_id, ordering_key from message")
    assert rows == [(f"{id_}:p", "orders", "order.made", '{"n":1}', '{"h":"1"}', "corr-1", "k")]
    assert bench.query("select state from job where pool = 1") == [("r",)]


def test_what_a_step_publishes_is_held_to_its_types_schema(bench: Bench) -> None:
    types, orders = MessageTypes(bench.database), {"type": "object", "required": ["total"]}
    values = TypeValues("order.made", "warn", "none", None, None, {}, orders)
    made = types.register(values, by="operator").type
    config = {"messageType": "order.made", "payload": {"n": 1}}
    assert bench.run([{"id": "p", "type": "publish", "config": config}])["status"] == "completed"
    assert bench.query("select type, version, faults->0->>'path' from message_warning") == [
        ("order.made", 1, "payload")
    ]
    types.change(made.id, lambda _: values._replace(mode="enforce"), by="operator")
    failed = bench.run([{"id": "p", "type": "publish", "config": config}])
    assert (failed["status"], failed["error"]["class"]) == ("failed", "ValidationError")
    assert "'total' is a required property" in failed["error"]["message"]
    assert bench.query("select count(*) from message") == [(1,)]


def test_what_was_published_before_its_schema_became_strict_is_no_failure(bench: Bench) -> None:
    config = {"messageType": "order.made", "payload": {"n": 1}}
    id_ = bench.start(bench.define([{"id": "p", "type": "publish", "config": config}], name="orders"), {})
    (claim,) = bench.claim()
    published = bench.messages.publish

    def dies_after(message: Any) -> str:
        published(message)
        raise KeyboardInterrupt

    bench.messages.publish = dies_after  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        bench.runner.run(claim.id, claim.attempt)
    strict = TypeValues("order.made", "enforce", "none", None, None, {}, False)
    MessageTypes(bench.database).register(strict, by="operator")
    bench.messages.publish = published  # type: ignore[method-assign]
    bench.lose_leases()
    bench.settle()
    assert bench.execution(id_)["status"] == "completed"


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
