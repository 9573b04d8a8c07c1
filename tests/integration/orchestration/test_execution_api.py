"""Runs over the API: how they are steered, seen and listed."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest

from esb_workers.orchestration.tasks import StrandEngine
from tests.support.api import ApiClient
from tests.support.receiver import Receiver, Reply
from tests.support.runs import SLEEPER, Eventually, define, ended, execute, register, run_of


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as made:
        yield made


def test_pause_resume_cancel_and_what_is_not_allowed(
    api: ApiClient, pool: StrandEngine, eventually: Eventually
) -> None:
    run = execute(api, define(api, {"steps": [{"id": "w", "type": "wait", "config": {"duration": 600}}]}))
    eventually(lambda: run_of(api, run)["status"] == "waiting")
    assert api.post(f"/orchestration/executions/{run}/pause").json["status"] == "paused"
    assert api.post(f"/orchestration/executions/{run}/pause").json["code"] == "illegal_transition"
    assert api.post(f"/orchestration/executions/{run}/retry").status_code == 409
    time.sleep(0.7)  # the timer comes due meanwhile
    assert run_of(api, run)["status"] == "paused"
    assert api.post(f"/orchestration/executions/{run}/resume").status_code == 200
    assert ended(api, run, eventually)["status"] == "completed"
    assert api.post(f"/orchestration/executions/{run}/cancel").status_code == 409


def test_a_run_is_edited_skipped_rerun_and_undone_over_the_api(
    api: ApiClient, pool: StrandEngine, eventually: Eventually
) -> None:
    steps = [
        {"id": "w", "type": "wait_for_signal", "config": {"signal": "never"}},
        {"id": "s", "type": "set", "config": {"variables": {"seen": "${who}"}}},
    ]
    run = execute(api, define(api, {"flow": "sequential", "steps": steps}), {"who": "x"})
    at = f"/orchestration/executions/{run}"
    eventually(lambda: run_of(api, run)["status"] == "waiting")
    assert api.patch(f"{at}/context", {"who": "y"}).json["code"] == "illegal_transition"
    api.post(f"{at}/pause")
    edited = api.patch(f"{at}/context", {"who": "y"})
    assert (edited.status_code, edited.json["context"], edited.json["status"]) == (200, {"who": "y"}, "paused")
    assert api.patch(f"{at}/context", ["no object"]).status_code == 422
    skipped = api.post(f"{at}/skip", {"step": "w"}).json
    assert skipped["steps"][0]["status"] == "skipped"
    api.post(f"{at}/resume")
    assert ended(api, run, eventually)["output"] == {"who": "y", "seen": "y"}
    assert api.post(f"{at}/skip", {"step": "w"}).status_code == 409
    refused = api.post(f"{at}/rerun", {"fromStep": "bogus"})
    assert (refused.status_code, refused.json["errors"][0]["path"]) == (422, "fromStep")
    again = api.post(f"{at}/rerun", {"fromStep": "s", "context": {"who": "z"}})
    assert (again.status_code, again.json["status"]) == (200, "running")
    assert ended(api, run, eventually)["output"] == {"who": "z", "seen": "z"}
    (entry,) = [e for e in api.get(f"{at}/history").json["items"] if e["type"] == "run.rerun"]
    assert entry["detail"] == {"by": "operator", "from": "s", "context": {"who": "z"}}
    assert {"skip", "edit", "rerun"} <= {c["action"] for c in api.get("/system/audit?resource=execution").json["items"]}


def test_a_pending_run_can_be_paused_before_anybody_took_it(api: ApiClient) -> None:
    run = execute(api, define(api, SLEEPER))
    assert run_of(api, run)["status"] == "pending"
    assert api.post(f"/orchestration/executions/{run}/pause").json["status"] == "paused"
    assert api.post(f"/orchestration/executions/{run}/resume").json["status"] == "pending"


def test_a_cancelled_run_lets_the_call_under_way_end_and_begins_no_other(
    api: ApiClient, pool: StrandEngine, receiver: Receiver, eventually: Eventually
) -> None:
    receiver.answer = lambda hit: Reply(delay=0.5)
    register(api, "svc", receiver.url)
    steps = [{"id": x, "type": "service_call", "config": {"serviceName": "svc", "method": x}} for x in ("a", "b")]
    run = execute(api, define(api, {"steps": steps, "flow": "sequential"}))
    eventually(lambda: receiver.hits)
    assert api.post(f"/orchestration/executions/{run}/cancel", {"reason": "enough"}).json["status"] == "cancelled"
    eventually(lambda: run_of(api, run)["steps"][0]["status"] == "completed")
    done = run_of(api, run)
    assert [(s["id"], s["status"]) for s in done["steps"]] == [("a", "completed")]
    assert (done["reason"], len(receiver.hits)) == ("enough", 1)


def test_a_failed_run_goes_on_from_the_failed_step(
    api: ApiClient, pool: StrandEngine, receiver: Receiver, eventually: Eventually
) -> None:
    well = {"/a": True, "/b": False}
    receiver.answer = lambda hit: Reply() if well[hit.path] else Reply(400, b'{"why": "no"}')
    register(api, "svc", receiver.url)
    steps = [{"id": x, "type": "service_call", "config": {"serviceName": "svc", "method": x}} for x in ("a", "b")]
    run = execute(api, define(api, {"steps": steps, "flow": "sequential"}))
    failed = ended(api, run, eventually)
    assert (failed["status"], failed["error"]["class"], failed["error"]["body"]) == (
        "failed",
        "HttpStatus.400",
        {"why": "no"},
    )
    well["/b"] = True
    assert api.post(f"/orchestration/executions/{run}/retry").status_code == 200
    assert ended(api, run, eventually)["status"] == "completed"
    assert [hit.path for hit in receiver.hits] == ["/a", "/b", "/b"]


def test_a_run_waits_for_a_service_in_maintenance(
    api: ApiClient, pool: StrandEngine, receiver: Receiver, eventually: Eventually
) -> None:
    service = register(api, "svc", receiver.url)
    api.patch(f"/services/{service}/status", {"status": "maintenance"})
    run = execute(
        api,
        define(api, {"steps": [{"id": "a", "type": "service_call", "config": {"serviceName": "svc", "method": "x"}}]}),
    )
    eventually(lambda: run_of(api, run)["status"] == "waiting")
    assert run_of(api, run)["steps"][0]["waitingFor"] == "service:maintenance"
    api.patch(f"/services/{service}/status", {"status": "active"})
    assert ended(api, run, eventually)["status"] == "completed"


def test_a_signal_over_the_api(api: ApiClient, pool: StrandEngine, eventually: Eventually) -> None:
    steps = [{"id": "w", "type": "wait_for_signal", "config": {"signal": "go", "resultPath": "said"}}]
    run = execute(api, define(api, {"steps": steps}))
    eventually(lambda: run_of(api, run)["status"] == "waiting")
    assert api.post(f"/orchestration/executions/{run}/signal", {"name": "go", "payload": [1]}).status_code == 200
    assert ended(api, run, eventually)["output"] == {"said": [1]}


def test_a_business_key_belongs_to_one_open_run(api: ApiClient) -> None:
    workflow = define(api, SLEEPER)
    run = execute(api, workflow, businessKey="order-1")
    again = api.post("/orchestration/execute", {"workflowId": workflow, "businessKey": "order-1"})
    assert (again.status_code, again.json["executionId"]) == (409, run)
    found = api.get("/orchestration/executions?businessKey=order-1").json["items"]
    assert [item["id"] for item in found] == [run]
    api.post(f"/orchestration/executions/{run}/cancel")
    execute(api, workflow, businessKey="order-1")


def test_a_start_is_repeated_under_its_idempotency_key(api: ApiClient) -> None:
    workflow = define(api, SLEEPER)
    body = {"workflowId": workflow}
    first = api.post("/orchestration/execute", body, Idempotency_Key="k1")
    second = api.post("/orchestration/execute", body, Idempotency_Key="k1")
    assert second.status_code == 202 and second.json == first.json
    assert second.headers["Idempotency-Replayed"] == "true"
    assert len(api.get("/orchestration/executions").json["items"]) == 1


def test_a_client_sees_and_steers_its_own_runs_only(
    api: ApiClient, pool: StrandEngine, receiver: Receiver, eventually: Eventually
) -> None:
    register(api, "svc", receiver.url)
    workflow = define(
        api, {"steps": [{"id": "a", "type": "service_call", "config": {"serviceName": "svc", "method": "x"}}]}
    )
    keys = [
        api.post("/clients", {"name": name, "allowedServices": allowed}).json["apiKey"]
        for name, allowed in (("one", ["svc"]), ("two", ["other"]), ("none", []))
    ]
    one, two, none = (api.with_key(key) for key in keys)
    assert none.post("/orchestration/execute", {"workflowId": workflow}).json["code"] == "service_forbidden"
    mine, theirs = execute(one, workflow), execute(two, workflow)
    assert ended(one, mine, eventually)["status"] == "completed"
    failed = ended(two, theirs, eventually)
    assert (failed["status"], failed["error"]["class"]) == ("failed", "Forbidden")
    assert one.get(f"/orchestration/executions/{theirs}").status_code == 404
    assert [item["id"] for item in one.get("/orchestration/executions").json["items"]] == [mine]
    assert one.post(f"/orchestration/executions/{mine}/pause").status_code == 403
    listed = one.get("/orchestration/workflows").json["items"]
    assert [item["name"] for item in listed] == ["w"] and "definition" not in listed[0]


def test_lists_are_filtered_and_paged(api: ApiClient) -> None:
    workflow = define(api, SLEEPER)
    runs = [execute(api, workflow, correlationId=f"c{i % 2}") for i in range(5)]
    api.post(f"/orchestration/executions/{runs[0]}/cancel")
    first = api.get("/orchestration/executions?limit=3&status=pending").json
    assert [item["id"] for item in first["items"]] == runs[:1:-1]
    second = api.get(f"/orchestration/executions?limit=3&status=pending&cursor={first['nextCursor']}").json
    assert ([item["id"] for item in second["items"]], second["nextCursor"]) == ([runs[1]], None)
    assert len(api.get("/orchestration/executions?correlationId=c0").json["items"]) == 3
    assert api.get("/orchestration/executions?bogus=1").status_code == 422
    assert api.get(f"/orchestration/executions?workflowId={runs[0]}").json["items"] == []


def test_steps_and_history_come_by_pages(api: ApiClient, pool: StrandEngine, eventually: Eventually) -> None:
    body = [{"id": "n", "type": "set", "config": {"variables": {"n": "${n + 1}"}}}]
    steps = [{"id": "l", "type": "loop", "config": {"while": "n < 260", "steps": body}}]
    run = execute(api, define(api, {"steps": steps}), {"n": 0})
    done = ended(api, run, eventually)
    assert len(done["steps"]) == 200 and done["steps"][-1]["path"] == "l[259]/n"
    paths, cursor = [], ""
    while cursor is not None:
        page = api.get(f"/orchestration/executions/{run}/steps?limit=100{cursor and '&cursor=' + cursor}").json
        paths += [step["path"] for step in page["items"]]
        cursor = page["nextCursor"]
    assert paths == ["l", *[f"l[{i}]/n" for i in range(260)]]
    first = api.get(f"/orchestration/executions/{run}/history?limit=10").json
    second = api.get(f"/orchestration/executions/{run}/history?limit=10&cursor={first['nextCursor']}").json
    assert [entry["seq"] for entry in second["items"]] == list(range(11, 21))


def test_the_graph_of_a_run_has_the_state_of_each_step(
    api: ApiClient, pool: StrandEngine, eventually: Eventually
) -> None:
    each = {"items": [1, 2, 3], "steps": [{"id": "q", "type": "log", "config": {"message": "m"}}]}
    steps = [
        {"id": "each", "type": "foreach", "config": each},
        {"id": "off", "type": "log", "condition": "false", "config": {"message": "m"}},
        {"id": "ask", "type": "wait_for_signal", "config": {"signal": "s"}},
        {"id": "end", "type": "log", "config": {"message": "m"}},
    ]
    run = execute(api, define(api, {"flow": "sequential", "steps": steps}))
    path = f"/orchestration/executions/{run}/graph"

    def states() -> dict[str, Any]:
        return {node["id"]: (node["status"], node["visits"]) for node in api.get(path).json["nodes"]}

    eventually(lambda: states()["ask"][0] == "waiting", 10)
    assert states() == {
        "each": ("completed", {"completed": 1}),
        "q": ("completed", {"completed": 3}),
        "off": ("skipped", {"skipped": 1}),
        "ask": ("waiting", {"waiting": 1}),
        "end": (None, {}),
    }
    assert "class s3 waiting" in api.get(f"{path}?format=mermaid").text
    assert "3 completed" in api.get(path, Accept="image/svg+xml").text
    api.post(f"/orchestration/executions/{run}/cancel")
    eventually(lambda: states()["ask"][0] == "cancelled", 10)


def test_runs_are_found_by_the_class_of_their_error_and_by_the_name_of_their_workflow(
    api: ApiClient, pool: StrandEngine, eventually: Eventually
) -> None:
    for name, error in (("one", "NoStock"), ("two", "HttpStatus.503"), ("three", "No_tock")):
        id_ = define(api, {"steps": [{"id": "f", "type": "fail", "config": {"error": error}}]}, name)
        ended(api, execute(api, id_), eventually)

    def found(query: str) -> set[str]:
        return {run["workflowName"] for run in api.get(f"/orchestration/executions?{query}").json["items"]}

    assert found("errorClass=NoStock") == {"one"}
    assert found("errorClass=No_tock") == {"three"}
    assert found("errorClass=HttpStatus.5xx") == {"two"}
    assert found("errorClass=HttpStatus.4xx") == set()
    assert found("errorClass=NoStock,HttpStatus.503&status=failed") == {"one", "two"}
    assert found("workflowName=two,three") == {"two", "three"}


def test_a_run_is_answered_by_its_callback_once_and_without_a_key(
    api: ApiClient, pool: StrandEngine, receiver: Receiver, eventually: Eventually
) -> None:
    register(api, "desk", receiver.url)
    ask = {
        "id": "ask",
        "type": "service_call",
        "config": {
            "serviceName": "desk",
            "method": "ask",
            "payload": {"url": "${callbacks['answer'].url}", "i": "${index}"},
        },
    }
    wait = {"id": "answer", "type": "wait_for_signal", "config": {"signal": "answer", "callback": True}}
    each = {"items": ["a", "b"], "steps": [ask, wait], "maxConcurrency": 2, "resultPath": "said"}
    definition = {"steps": [{"id": "each", "type": "foreach", "config": each}]}
    stranger = api.with_key(None)

    def path(hit: Any) -> str:
        return "/orchestration/callbacks/" + str(hit.json["url"]).rsplit("/", 1)[1]

    def answer(hit: Any) -> Reply:
        if hit.json["i"] == 0:  # before the run waits
            assert stranger.post(path(hit), {"n": 0}).status_code == 202
        return Reply.json({})

    receiver.answer = answer
    run = execute(api, define(api, definition))
    eventually(lambda: run_of(api, run)["status"] == "waiting" and len(receiver.hits) == 2, 15)
    first, second = sorted(receiver.hits, key=lambda hit: hit.json["i"])
    assert stranger.post(path(second) + "x", {}).status_code == 404
    assert stranger.post(path(second)[:-4] + "AAAA", {}).status_code == 404
    again = stranger.post(path(first), {"n": 7})
    assert (again.status_code, again.json["code"]) == (409, "callback_used")
    assert stranger.post(path(second), {"n": 1}).json == {"executionId": run, "status": "accepted"}
    done = ended(api, run, eventually)
    assert (done["status"], done["context"]["said"]) == ("completed", [{"n": 0}, {"n": 1}])
    assert stranger.post(path(second), {"n": 1}).status_code == 409
