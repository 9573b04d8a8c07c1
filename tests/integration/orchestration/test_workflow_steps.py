"""Every step type, on a real database."""

from __future__ import annotations

from typing import Any

from esb_workers.orchestration.world import Answer, Held
from tests.support.steps import log
from tests.support.workflows import Bench, down, service


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
