"""Workflows over the API, with the orchestration pool and real services."""

from __future__ import annotations

from typing import Any

import orjson

from esb_workers.expressions.schemas import compile_schema
from esb_workers.orchestration.tasks import StrandEngine
from tests.support.api import ApiClient
from tests.support.receiver import Receiver, Reply
from tests.support.runs import SLEEPER, Eventually, define, ended, execute, register, run_of
from tests.support.specification import USER_ONBOARDING


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
