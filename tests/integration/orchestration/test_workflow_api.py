"""Workflows over the API, with the orchestration pool and real services."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import orjson
import pytest

from esb_workers.app import make_celery
from esb_workers.expressions.schemas import compile_schema
from esb_workers.orchestration.tasks import StrandEngine, make_engine
from esb_workers.runtime.ringer import Ringer
from esb_workers.settings import Settings
from esb_workers.store.engine import Database
from tests.support.api import ApiClient
from tests.support.receiver import Receiver, Reply

Eventually = Callable[..., None]
FINAL = ("completed", "failed", "cancelled", "compensated", "timed_out")

USER_ONBOARDING: dict[str, Any] = {
    "name": "user-onboarding",
    "version": "1.0.0",
    "description": "Complete user onboarding process",
    "definition": {
        "steps": [
            {
                "id": "create-user",
                "name": "Create User Account",
                "type": "service_call",
                "config": {
                    "serviceName": "user-service",
                    "method": "createUser",
                    "payload": {"email": "${email}", "name": "${name}"},
                },
                "onSuccess": "send-welcome-email",
            },
            {
                "id": "send-welcome-email",
                "name": "Send Welcome Email",
                "type": "service_call",
                "config": {
                    "serviceName": "email-service",
                    "method": "sendWelcomeEmail",
                    "payload": {"userId": "${userId}", "email": "${email}"},
                },
            },
        ],
        "variables": {},
        "errorHandling": {
            "retryPolicy": {
                "maxRetries": 3,
                "backoffStrategy": "exponential",
                "initialDelay": 1000,
                "maxDelay": 10000,
            },
            "onError": "log-error",
        },
    },
}
SLEEPER = {"steps": [{"id": "w", "type": "wait", "config": {"duration": 3_600_000}}]}


@pytest.fixture
def pool(settings: Settings, database: Database) -> Iterator[StrandEngine]:
    """The orchestration pool in this process; no broker, so it looks for itself."""
    settings = settings.model_copy(update={"sweep_seconds": 0.2, "lease_seconds": 5.0})
    ringer = Ringer(make_celery(settings))
    engine = make_engine(settings, database, ringer, slots=8)
    engine.start()
    yield engine
    engine.stop(5)
    ringer.close()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as made:
        yield made


def register(api: ApiClient, name: str, url: str, **more: Any) -> str:
    made = api.post("/services", {"name": name, "version": "1.0.0", "endpoint": url, **more})
    assert made.status_code == 201, made.json
    return str(made.json["id"])


def define(api: ApiClient, definition: Any, name: str = "w", version: str = "1.0.0") -> str:
    made = api.post("/orchestration/workflows", {"name": name, "version": version, "definition": definition})
    assert made.status_code == 201, made.json
    return str(made.json["id"])


def execute(api: ApiClient, workflow_id: str, context: Any = None, **more: Any) -> str:
    made = api.post("/orchestration/execute", {"workflowId": workflow_id, "initialContext": context or {}, **more})
    assert made.status_code == 202, made.json
    return str(made.json["executionId"])


def run_of(api: ApiClient, execution_id: str) -> Any:
    return api.get(f"/orchestration/executions/{execution_id}").json


def ended(api: ApiClient, execution_id: str, eventually: Eventually, seconds: float = 15) -> Any:
    eventually(lambda: run_of(api, execution_id)["status"] in FINAL, seconds)
    return run_of(api, execution_id)


def test_the_specifications_workflow_runs_though_its_services_fail_twice_first(
    api: ApiClient, pool: StrandEngine, eventually: Eventually
) -> None:
    with Receiver() as users, Receiver() as mail:
        failures = {"/createUser": 2, "/sendWelcomeEmail": 0}

        def answer(hit: Any) -> Reply:
            failures[hit.path] -= 1
            return Reply(503) if failures[hit.path] >= 0 else Reply.json({"userId": "u-42"})

        users.answer = mail.answer = answer
        register(api, "user-service", users.url)
        register(api, "email-service", mail.url)
        made = api.post("/orchestration/workflows", USER_ONBOARDING)
        assert made.status_code == 201 and made.json["definition"] == USER_ONBOARDING["definition"]
        started = api.post(
            "/orchestration/execute",
            {"workflowId": made.json["id"], "initialContext": {"email": "user@example.com", "name": "John Doe"}},
            X_Correlation_ID="onboard-1",
        )
        assert started.status_code == 202 and started.json["status"] == "pending"
        assert started.json["correlationId"] == started.headers["X-Correlation-ID"] == "onboard-1"
        id_ = started.json["executionId"]
        done = ended(api, id_, eventually)
        assert done["status"] == "completed"
        assert [(s["id"], s["status"], s["attempts"]) for s in done["steps"]] == [
            ("create-user", "completed", 3),
            ("send-welcome-email", "completed", 1),
        ]
        assert done["context"]["userId"] == "u-42"
        assert [hit.json for hit in users.hits] == [{"email": "user@example.com", "name": "John Doe"}] * 3
        assert {hit.key for hit in users.hits} == {f"{id_}:create-user"}
        assert mail.hits[0].json == {"userId": "u-42", "email": "user@example.com"}
        assert users.hits[0].headers["x-correlation-id"] == "onboard-1"
        assert "webhook-signature" in users.hits[0].headers and "traceparent" in users.hits[0].headers
        gaps = [b.at - a.at for a, b in zip(users.hits, users.hits[1:], strict=False)]
        assert 1.0 <= gaps[0] < 1.9 and 2.0 <= gaps[1] < 3.2
        history = api.get(f"/orchestration/executions/{id_}/history").json["items"]
        assert [entry["seq"] for entry in history] == list(range(1, len(history) + 1))
        assert [entry["detail"]["attempt"] for entry in history if entry["type"] == "step.retrying"] == [1, 2]
        assert history[0]["type"] == "run.started" and history[-1]["type"] == "run.completed"


def test_a_definition_with_faults_is_refused_with_all_of_them(api: ApiClient) -> None:
    definition = {
        "steps": [
            {"id": "a", "type": "log", "config": {"message": "${1 +}"}, "onSuccess": "nowhere"},
            {"id": "a", "type": "log", "config": {"message": ""}},
            {"id": "lost", "type": "magic"},
        ],
        "errorHandling": {"onError": "shrug"},
    }
    answer = api.post("/orchestration/workflows", {"name": "w", "version": "1", "definition": definition})
    assert answer.status_code == 422
    paths = {fault["path"] for fault in answer.json["errors"]}
    assert paths >= {
        "version",
        "definition.steps[0].config.message",
        "definition.steps[0].onSuccess",
        "definition.steps[1].id",
        "definition.steps[2].type",
        "definition.errorHandling.onError",
    }
    dry = api.post("/orchestration/workflows/validate", {"definition": definition})
    assert dry.status_code == 200 and dry.json["valid"] is False and len(dry.json["errors"]) == len(paths) - 1


def test_a_version_is_unique_immutable_and_cannot_go_while_it_runs(api: ApiClient) -> None:
    id_ = define(api, SLEEPER)
    again = api.post("/orchestration/workflows", {"name": "w", "version": "1.0.0", "definition": SLEEPER})
    assert again.status_code == 409
    assert api.get(f"/orchestration/workflows/{id_}").json["definition"] == SLEEPER
    run = execute(api, id_)
    assert api.delete(f"/orchestration/workflows/{id_}").status_code == 409
    assert api.post(f"/orchestration/executions/{run}/cancel").json["status"] == "cancelled"
    assert api.delete(f"/orchestration/workflows/{id_}").status_code == 204
    assert api.get(f"/orchestration/workflows/{id_}").status_code == 404
    assert run_of(api, run)["status"] == "cancelled"
    assert api.post("/orchestration/execute", {"workflowId": id_}).status_code == 404


def test_a_name_alone_means_the_highest_release(api: ApiClient, pool: StrandEngine) -> None:
    for version in ("1.9.0", "1.10.0", "2.0.0-rc.1"):
        define(api, {"steps": [{"id": "s", "type": "succeed", "config": {"output": version}}]}, version=version)
    done = api.post("/orchestration/execute", {"workflowName": "w"}, Prefer="wait=10")
    assert (done.status_code, done.json["output"], done.headers["Preference-Applied"]) == (200, "1.10.0", "wait=10")
    done = api.post("/orchestration/execute", {"workflowName": "w", "version": "2.0.0-rc.1"}, Prefer="wait=10")
    assert done.json["output"] == "2.0.0-rc.1"


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


def test_graphs(api: ApiClient) -> None:
    id_ = define(api, USER_ONBOARDING["definition"])
    graph = api.get(f"/orchestration/workflows/{id_}/graph").json
    assert graph["edges"] == [{"from": "create-user", "to": "send-welcome-email", "kind": "next", "label": None}]
    mermaid = api.get(f"/orchestration/workflows/{id_}/graph?format=mermaid")
    assert "s0 --> s1" in mermaid.text
    assert api.get(f"/orchestration/workflows/{id_}/graph?format=svg").text.startswith("<svg")
    path = f"/orchestration/workflows/{id_}/graph"
    assert api.get(path, Accept="image/svg+xml").content_type == "image/svg+xml"
    assert api.get(path, Accept="text/html, */*;q=0.1").content_type == "application/json"
    assert api.get(f"{path}?format=json", Accept="image/svg+xml").content_type == "application/json"  # wins


def test_an_input_that_does_not_fit_its_schema_is_refused(api: ApiClient) -> None:
    schema = {"type": "object", "required": ["email"], "properties": {"email": {"type": "string"}}}
    id_ = define(api, {**SLEEPER, "inputSchema": schema})
    answer = api.post("/orchestration/execute", {"workflowId": id_, "initialContext": {"email": 1}})
    assert (answer.status_code, answer.json["errors"][0]["path"]) == (422, "initialContext.email")


def test_a_workflow_is_tried_out_and_leaves_nothing_behind(api: ApiClient) -> None:
    made = api.post("/orchestration/workflows", USER_ONBOARDING)
    body = {
        "initialContext": {"email": "a@b.c", "name": "Ann"},
        "mocks": {
            "create-user": [{"error": "HttpStatus.503"}, {"output": {"userId": "u-1"}}],
            "send-welcome-email": {"output": None},
        },
        "expect": {"status": "completed", "context": {"userId": "u-1"}, "attempts": {"create-user": 2}},
    }
    tried = api.post(f"/orchestration/workflows/{made.json['id']}/test", body)
    assert (tried.status_code, tried.json["passed"], tried.json["duration"]) == (200, True, 1000)
    assert tried.json["calls"][2]["input"]["payload"] == {"userId": "u-1", "email": "a@b.c"}
    draft = api.post("/orchestration/workflows/test", {"definition": USER_ONBOARDING["definition"], **body})
    assert draft.json["history"] == tried.json["history"]
    assert api.get("/orchestration/executions").json["items"] == []
    refused = api.post(f"/orchestration/workflows/{made.json['id']}/test", {"mocks": {"x": {}}})
    assert (refused.status_code, refused.json["errors"][0]["path"]) == (422, "mocks.x")


def test_what_a_definition_names_and_nobody_has_registered_is_a_warning(api: ApiClient) -> None:
    register(api, "user-service", "http://127.0.0.1:9")
    kid = {"id": "kid", "type": "sub_workflow", "config": {"workflowName": "nobody"}}
    definition = {"flow": "sequential", "steps": [*USER_ONBOARDING["definition"]["steps"], kid]}
    told = [
        ("definition.steps[1].config.serviceName", "no service is registered as 'email-service'"),
        ("definition.steps[2].config.workflowName", "there is no workflow 'nobody'"),
    ]
    checked = api.post("/orchestration/workflows/validate", {"definition": definition}).json
    assert checked["valid"] is True and [(w["path"], w["message"]) for w in checked["warnings"]] == told
    made = api.post("/orchestration/workflows", {"name": "w", "version": "1.0.0", "definition": definition})
    assert made.status_code == 201 and len(made.json["warnings"]) == 2


def test_the_schema_of_definitions_needs_no_key(api: ApiClient) -> None:
    answer = api.with_key(None).get("/orchestration/workflows/schema")
    assert (answer.status_code, answer.content_type) == (200, "application/schema+json")
    schema = orjson.loads(answer.data)
    assert compile_schema(schema, "").faults(USER_ONBOARDING["definition"]) == []
    assert compile_schema({"$defs": schema["$defs"], "$ref": "#/$defs/workflow"}, "").faults(USER_ONBOARDING) == []


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
