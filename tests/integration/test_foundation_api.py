"""What every call has in common: problems, bodies, headers, correlation, the documents."""

from __future__ import annotations

import json
import logging
from io import BytesIO
from typing import Any

import pytest

from esb_api.app import create_app
from esb_api.call import Call
from esb_api.operations import Resource
from esb_api.principals import Access
from esb_workers.settings import Settings
from tests.support.api import OPERATOR_KEY, ApiClient

SERVICE = {"name": "orders", "version": "1.0.0", "endpoint": "http://127.0.0.1:9000"}


def post_raw(api: ApiClient, data: Any, path: str = "/services", **headers: str) -> Any:
    named = {"X-API-Key": OPERATOR_KEY, "Content-Type": "application/json"}
    named |= {name.replace("_", "-"): value for name, value in headers.items()}
    return api._client.post(path, data=data, headers=named)


def test_a_problem_has_every_member(api: ApiClient) -> None:
    response = api.post("/services", {"name": 1})
    assert response.content_type == "application/problem+json"
    problem = response.json
    assert (problem["type"], problem["status"], problem["code"]) == ("urn:esb:problem:invalid", 422, "invalid")
    assert problem["requestId"] == response.headers["X-Request-ID"]
    assert {"path": "version", "message": "is required"} in problem["errors"]
    assert problem["title"]
    assert problem["detail"]


@pytest.mark.parametrize(
    "data", [b"", b"{", b"NaN", b'{"name":"a","name":"b"}', rb'{"name":"\u0000"}', b"[" * 65 + b"]" * 65]
)
def test_a_body_that_is_no_json_is_400(api: ApiClient, data: bytes) -> None:
    response = post_raw(api, data)
    assert (response.status_code, response.json["code"]) == (400, "malformed_json")


@pytest.mark.parametrize(
    "content_type",
    ["", "text/plain", "application/xml", "application/json; charset=utf-16", "application/merge-patch+json"],
)
def test_another_media_type_is_415(api: ApiClient, content_type: str) -> None:
    assert post_raw(api, json.dumps(SERVICE), Content_Type=content_type).status_code == 415


def test_an_encoded_body_is_415(api: ApiClient) -> None:
    assert post_raw(api, b"x", Content_Encoding="gzip").json["code"] == "unsupported_content_encoding"
    assert post_raw(api, json.dumps(SERVICE), Content_Encoding="identity").status_code == 201


@pytest.mark.parametrize("content_type", ["application/json;charset=UTF-8", "Application/JSON; charset=utf8"])
def test_json_may_name_its_charset(api: ApiClient, content_type: str) -> None:
    assert post_raw(api, json.dumps(SERVICE), Content_Type=content_type).status_code == 201


def test_a_body_over_the_limit_is_413(api: ApiClient) -> None:
    response = post_raw(api, b'"' + b"a" * (1 << 20) + b'"')
    assert (response.status_code, response.json["limit"]) == (413, 1 << 20)


@pytest.mark.parametrize(("size", "status"), [((1 << 20), 413), ((1 << 20) - 1, 400), (40 << 20, 413)])
def test_a_chunked_body_has_the_same_limit(api: ApiClient, size: int, status: int) -> None:
    body = BytesIO(b'"' + b"a" * size)
    response = api._client.post(
        "/services", input_stream=body, headers={"X-API-Key": OPERATOR_KEY, "Content-Type": "application/json"},
        environ_overrides={"wsgi.input_terminated": True, "CONTENT_LENGTH": ""},
    )  # fmt: skip
    assert (response.status_code, response.content_type) == (status, "application/problem+json")
    # The rest is read all the same, so that its sender gets to see the refusal; but not without end.
    assert (body.read() == b"") == (size < 16 << 20)


@pytest.mark.parametrize(("body", "status"), [(None, 201), ({}, 201), ({"a": 1}, 422), ([], 422), ("x", 422)])
def test_a_post_that_needs_no_body_takes_none_or_an_empty_object(api: ApiClient, body: Any, status: int) -> None:
    service = api.post("/services", SERVICE).json
    assert api.post(f"/services/{service['id']}/keys", body).status_code == status


def test_paths_and_methods_that_are_not_there(api: ApiClient) -> None:
    assert api.get("/nothing").json["code"] == "not_found"
    response = api.delete("/services")
    assert (response.status_code, response.json["code"]) == (405, "method_not_allowed")
    assert set(response.headers["Allow"].split(", ")) == {"GET", "HEAD", "POST"}
    assert api.call("OPTIONS", "/services").status_code == 405


def test_the_correlation_id_is_taken_and_echoed(api: ApiClient) -> None:
    assert api.get("/services", X_Correlation_ID="abc-123").headers["X-Correlation-ID"] == "abc-123"
    made = api.get("/services").headers["X-Correlation-ID"]
    assert len(made) == 36
    for bad in ("a b", "x" * 201, "\x80"):
        response = api.get("/services", X_Correlation_ID=bad)
        assert (response.status_code, response.json["code"]) == (400, "malformed_header")


def test_a_stored_null_byte_never_reaches_the_database(api: ApiClient) -> None:
    assert api.get("/services?name=%00").status_code == 422
    assert api.get("/services/discover/a%00b").status_code in (200, 404)


def test_a_defect_says_nothing_to_the_caller_and_everything_to_the_log(
    settings: Settings, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = Resource("broken")

    @broken.operation("GET", "/broken", access=Access.OPEN, answers={200: "text/plain"})
    def read_broken(call: Call) -> Any:
        """Break."""
        raise RuntimeError("the inner secret")

    monkeypatch.setattr("esb_api.app.RESOURCES", (broken,))
    api = ApiClient(create_app(settings), None)
    with caplog.at_level(logging.ERROR):
        response = api.get("/broken")
    assert response.status_code == 500
    assert b"secret" not in response.data
    (record,) = (record for record in caplog.records if record.name == "esb.api")
    assert record.exc_info is not None
    assert record.request_id == response.json["requestId"]
    api.context.close()


def test_a_lost_database_is_503_with_retry_after() -> None:
    from tests.integration.conftest import SECRET_KEY

    gone = Settings.load(
        {}, None, database_url="postgresql://nobody@127.0.0.1:1/x", admin_key=OPERATOR_KEY, secret_keys=(SECRET_KEY,)
    )
    api = ApiClient(create_app(gone), OPERATOR_KEY)
    response = api.get("/services")
    assert (response.status_code, response.json["code"]) == (503, "unavailable")
    assert response.headers["Retry-After"] == "2"
    assert b"127.0.0.1" not in response.data
    ready = api.get("/health/ready")
    assert (ready.status_code, ready.json["database"]) == (503, "failed")
    assert api.get("/health/live").status_code == 200
    assert "esb_database_up 0.0" in api.get("/metrics").text
    api.context.close()


def test_health_metrics_and_info(api: ApiClient) -> None:
    nobody = api.with_key(None)
    assert nobody.get("/health/live").json == {"status": "ok"}
    ready = nobody.get("/health/ready")
    assert ready.status_code == 200
    assert ready.json == {
        "status": "degraded", "database": "ok", "broker": "none", "schema": "ok",
        "workers": {"routing": 0, "delivery": 0, "orchestration": 0, "health": 0, "ingress": 0},
    }  # fmt: skip
    assert nobody.get("/metrics").status_code == 401
    text = api.get("/metrics").text
    for name in (
        'esb_requests_total{method="GET",operation="read_readiness",status="200"} 1.0',
        "esb_request_duration_seconds_bucket",
        'esb_queue_depth{pool="delivery"} 0.0',
        'esb_queue_oldest_due_age_seconds{pool="routing"} 0.0',
        'esb_attempts_last_minute{outcome="ok"} 0.0',
        'esb_executions{status="running"} 0.0',
    ):
        assert name in text, name
    assert [item["pool"] for item in api.get("/system/queues").json["items"]] == [
        "routing",
        "delivery",
        "orchestration",
        "health",
        "ingress",
    ]
    assert api.get("/system/info").json["schemaVersion"] == 1


def test_the_root_leads_to_the_documentation_which_asks_no_other_host(api: ApiClient) -> None:
    nobody = api.with_key(None)
    assert nobody.get("/").headers["Location"] == "/docs"
    page = nobody.get("/docs")
    assert page.content_type.startswith("text/html")
    assert "://" not in page.text
    assert "default-src 'none'" in page.headers["Content-Security-Policy"]
    for asset in ("css/swagger-ui.css", "js/swagger-ui-bundle.js", "start.js", "images/swagger.svg"):
        assert nobody.get(f"/docs/assets/{asset}").status_code == 200
    assert nobody.get("/docs/assets/../app.py").status_code == 404


def test_the_document_names_every_path_of_the_registries(api: ApiClient) -> None:
    document = api.with_key(None).get("/openapi.json").json
    assert document["openapi"].startswith("3.1")
    for path, methods in {
        "/services": {"get", "post"},
        "/services/{id}": {"get", "put", "patch", "delete"},
        "/services/{id}/status": {"patch"},
        "/services/discover/{name}": {"get"},
        "/services/{id}/signing-secret/rotate": {"post"},
        "/clients": {"get", "post"},
        "/clients/{id}/keys/{keyId}": {"delete"},
        "/clients/{id}/usage": {"get"},
    }.items():
        assert methods <= set(document["paths"][path]), path


def test_each_request_leaves_one_line(api: ApiClient, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="esb.requests"):
        api.get("/services?limit=5", X_Correlation_ID="abc")
    (record,) = (record for record in caplog.records if record.name == "esb.requests")
    shown = {name: record.fields[name] for name in ("operation", "path", "status", "correlationId")}
    assert shown == {"operation": "list_services", "path": "/services", "status": 200, "correlationId": "abc"}
    assert OPERATOR_KEY not in str(vars(record))
