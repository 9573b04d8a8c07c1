"""Trials: definitions run over mocked results, with no database, no network and no waiting."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from esb_api import trial_view
from esb_api.schemas.trials import TrialAnswer, TrialBody
from esb_api.validation import validated
from esb_workers.errors import Invalid
from esb_workers.orchestration.definition import compile_definition

ORDER: dict[str, Any] = {
    "flow": "sequential",
    "steps": [
        {
            "id": "reserve",
            "type": "service_call",
            "config": {"serviceName": "stock", "method": "reserve", "payload": {"sku": "${sku}"}},
            "compensate": {"type": "service_call", "config": {"serviceName": "stock", "method": "release"}},
        },
        {
            "id": "pay",
            "type": "service_call",
            "config": {"serviceName": "bank", "method": "charge"},
            "timeout": 2000,
            "retryPolicy": {"maxRetries": 2, "initialDelay": 1000},
        },
    ],
    "errorHandling": {"onError": "compensate"},
}


def tried(definition: dict[str, Any], **body: Any) -> TrialAnswer:
    return trial_view.tried(compile_definition(definition), validated(TrialBody, body))


def happened(trial: TrialAnswer) -> list[str]:
    return [f"{entry.type} {entry.path}" if entry.path else entry.type for entry in trial.history]


def seconds(trial: TrialAnswer, type_: str) -> list[float]:
    return [(e.at - trial.started_at).total_seconds() for e in trial.history if e.type == type_]


def test_a_service_that_fails_twice_is_called_three_times_with_its_back_off() -> None:
    mocks = {"pay": [{"error": "HttpStatus.503"}, {"error": "HttpStatus.503"}, {"output": {"paid": True}}]}
    trial = tried(ORDER, initialContext={"sku": "x"}, mocks=mocks)
    assert (trial.status, trial.output) == ("completed", {"sku": "x", "paid": True})
    assert seconds(trial, "step.started") == [0, 0, 1, 3]
    assert trial.duration == 3000
    pay = next(step for step in trial.steps if step.id == "pay")
    assert (pay.attempts, pay.status, pay.output) == (3, "completed", {"paid": True})
    assert len({call.idempotency_key for call in trial.calls if call.path == "pay"}) == 1


def test_a_mock_that_takes_longer_than_the_steps_timeout_times_out() -> None:
    trial = tried(ORDER, initialContext={"sku": "x"}, mocks={"pay": {"output": {}, "duration": 3000}})
    assert (trial.status, trial.error["class"], trial.duration) == ("compensated", "Timeout", 9000)


def test_what_was_done_is_undone_by_the_compensations_of_the_definition() -> None:
    trial = tried(ORDER, initialContext={"sku": "x"}, mocks={"pay": {"error": "HttpStatus.402"}})
    assert trial.status == "compensated"
    assert [call.path for call in trial.calls] == ["reserve", "pay", "reserve:compensate"]
    assert {step.path: step.status for step in trial.steps}["reserve"] == "compensated"
    assert trial.unmocked == ["reserve", "reserve:compensate"]


def test_time_passes_without_waiting_and_a_signal_comes_when_it_is_said_to() -> None:
    definition = {
        "flow": "sequential",
        "steps": [
            {"id": "sleep", "type": "wait", "config": {"duration": 86_400_000}},
            {"id": "ask", "type": "wait_for_signal", "config": {"signal": "ok", "timeout": 3_600_000, "onTimeout": "no"}},
            {"id": "yes", "type": "succeed", "config": {"output": "${steps['ask'].output}"}},
            {"id": "no", "type": "fail", "config": {"error": "Nobody"}},
        ],
    }  # fmt: skip
    day, hour = 86_400_000, 3_600_000
    in_time = tried(definition, signals=[{"name": "ok", "payload": {"by": "ann"}, "after": day + 60_000}])
    assert (in_time.status, in_time.output, in_time.duration) == ("completed", {"by": "ann"}, day + 60_000)
    late = tried(definition, signals=[{"name": "ok", "after": day + hour + 1}])
    assert (late.status, late.error["class"], late.duration) == ("failed", "Nobody", day + hour)


def test_a_run_that_waits_for_what_it_was_not_given_is_waiting() -> None:
    trial = tried({"steps": [{"id": "ask", "type": "wait_for_signal", "config": {"signal": "ok"}}]})
    assert (trial.status, [(w.path, w.reason) for w in trial.waiting]) == ("waiting", [("ask", "signal")])


def test_branches_race_by_the_durations_of_their_mocks() -> None:
    call = {"type": "service_call", "config": {"serviceName": "s", "method": "m"}}
    branches = [
        {"name": name, "steps": [{"id": name, **call}, {"id": f"{name}2", **call}]} for name in ("slow", "fast")
    ]
    config = {"branches": branches, "join": "any", "resultPath": "won"}
    mocks = {"slow": {"output": 1, "duration": 500}, "fast": {"output": 2, "duration": 50}, "fast2": {"output": 3}}
    trial = tried({"steps": [{"id": "p", "type": "parallel", "config": config}]}, mocks=mocks)
    assert (trial.output, trial.duration) == ({"won": {"fast": 3}}, 50)
    assert "slow2" not in {step.id for step in trial.steps}


def test_foreach_takes_as_long_as_its_runners_let_it() -> None:
    item = {"id": "q", "type": "service_call", "config": {"serviceName": "s", "method": "m"}}
    config = {"items": list(range(10)), "maxConcurrency": 2, "steps": [item]}
    mocks = {"q": {"duration": 100}, "f[3]/q": {"error": "HttpStatus.400"}}
    trial = tried(
        {"steps": [{"id": "f", "type": "foreach", "config": {**config, "toleratedFailures": 1}}]}, mocks=mocks
    )
    assert (trial.status, trial.duration) == ("completed", 500)
    assert [step.path for step in trial.steps if step.status == "failed"] == ["f[3]/q"]


def test_a_child_run_comes_to_its_mock_after_its_duration() -> None:
    step = {"id": "kid", "type": "sub_workflow", "config": {"workflowName": "other", "resultPath": "r"}}
    good = tried({"steps": [step]}, mocks={"kid": {"output": 7, "duration": 1000}})
    assert (good.output, good.duration) == ({"r": 7}, 1000)
    bad = tried({"steps": [step]}, mocks={"kid": {"error": "NoStock", "message": "none left"}})
    assert (bad.status, bad.error["class"], bad.error["message"]) == ("failed", "NoStock", "none left")


def test_a_run_over_its_own_timeout_is_timed_out() -> None:
    trial = tried({"steps": [{"id": "w", "type": "wait", "config": {"duration": 5000}}], "timeout": 1000})
    assert (trial.status, trial.duration) == ("timed_out", 1000)


def test_a_run_that_never_ends_is_stopped() -> None:
    steps = [{"id": "w", "type": "wait", "config": {"duration": 1}, "onSuccess": "w"}]
    trial = tried({"steps": steps})
    assert trial.status == "running" and trial.stopped


def test_what_is_expected_is_compared_name_by_name() -> None:
    good = {"status": "completed", "context": {"paid": True}, "steps": {"pay": "completed"}, "attempts": {"pay": 1}}
    mocks = {"pay": {"output": {"paid": True}}}
    assert tried(ORDER, initialContext={"sku": "x"}, mocks=mocks, expect=good).passed is True
    trial = tried(ORDER, initialContext={"sku": "x"}, mocks=mocks, expect={"status": "failed", "context": {"a": 1}})
    assert trial.passed is False
    assert [(d.path, d.expected, d.actual) for d in trial.differences] == [
        ("status", "failed", "completed"),
        ("context.a", 1, None),
    ]


def test_every_mock_that_fits_no_step_is_named() -> None:
    with pytest.raises(Invalid) as refused:
        tried(ORDER, mocks={"nobody": {"output": 1}, "reserve:compensate": {"output": 1}, "pay:compensate": {}})
    assert [fault.path for fault in refused.value.errors] == ["mocks.nobody", "mocks.pay:compensate"]
    with pytest.raises(Invalid) as wrong:
        tried(ORDER, mocks={"pay": [{"error": "HttpStatus.many"}]})
    assert wrong.value.errors[0].path == "mocks.pay[0]"


def test_the_input_schema_holds_in_a_trial_too() -> None:
    with pytest.raises(Invalid):
        tried({**ORDER, "inputSchema": {"type": "object", "required": ["sku"]}})


@pytest.mark.parametrize("wanted", ["completed", "failed"])
def test_esb_workflows_test_says_whether_a_file_holds_and_needs_no_bus(tmp_path: Path, wanted: str) -> None:
    (tmp_path / "order.json").write_text(json.dumps({"name": "order", "version": "1.0.0", "definition": ORDER}))
    (tmp_path / "tests.yaml").write_text(
        "workflow: order.json\n"
        "tests:\n"
        "  - name: goes well\n"
        "    startedAt: 2026-03-29T00:30:00Z\n"
        "    initialContext: {sku: x}\n"
        f"    expect: {{status: {wanted}}}\n"
    )
    command = [sys.executable, "-m", "esb_api.cli", "workflows", "test", str(tmp_path / "tests.yaml"), "--history"]
    run = subprocess.run(command, capture_output=True, text=True, check=False, env={"PATH": ""})
    assert run.returncode == (0 if wanted == "completed" else 1), run.stderr
    assert ("PASS  goes well" if wanted == "completed" else "status: expected 'failed', got 'completed'") in run.stdout
    assert "step.completed  pay" in run.stdout


def test_the_tests_of_the_example_hold() -> None:
    file = Path(__file__).parents[2] / "examples/workflow-tests/order.yaml"
    command = [sys.executable, "-m", "esb_api.cli", "workflows", "test", str(file)]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (run.returncode, run.stdout.count("PASS")) == (0, 5), run.stdout + run.stderr
