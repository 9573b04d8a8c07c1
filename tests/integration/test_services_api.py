"""The service registry over HTTP: life cycle, versions, discovery, keys, secrets."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy import text

from esb_workers.store.engine import Database
from tests.support.api import ApiClient
from tests.support.receiver import Receiver

SPECIFIED = {
    "name": "user-service",
    "version": "1.0.0",
    "endpoint": "http://localhost:3001",
    "healthCheck": {"url": "http://localhost:3001/health", "interval": 30000, "timeout": 5000},
}


def register(api: ApiClient, **fields: Any) -> dict[str, Any]:
    response = api.post(
        "/services", {"name": "orders", "version": "1.0.0", "endpoint": "http://127.0.0.1:9000"} | fields
    )
    assert response.status_code == 201, response.json
    return response.json


def gate_of(database: Database, name: str) -> str | None:
    with database.read() as connection:
        connection.execute(text("select esb_lane(2::smallint, :name)"), {"name": name})
        return connection.execute(
            text("select gate from lane where pool = 2 and name = :name"), {"name": name}
        ).scalar()


def probe_job(database: Database, service_id: str) -> Any:
    with database.read() as connection:
        return connection.execute(
            text("select state from job where id = :id and pool = 4"), {"id": service_id}
        ).scalar()


def test_the_specified_registration_answers_the_whole_resource(api: ApiClient) -> None:
    response = api.post("/services", SPECIFIED)
    assert response.status_code == 201
    body = response.json
    assert response.headers["Location"] == f"/services/{body['id']}"
    assert response.headers["ETag"] == '"1"'
    assert body["healthCheck"] == {
        "url": "http://localhost:3001/health", "interval": 30000, "timeout": 5000, "healthyThreshold": 2,
        "unhealthyThreshold": 3, "expectedStatus": "2xx", "type": "http", "ttl": None,
    }  # fmt: skip
    assert (body["status"], body["health"], body["circuit"], body["weight"]) == ("active", "unknown", "closed", 1)
    assert body["delivery"].pop("signingSecret").startswith("whsec_")
    assert body["delivery"] == {
        "path": None, "method": "POST", "timeout": 10000, "headers": {}, "format": "binary", "maxConcurrency": None,
        "ratePerSecond": None, "catchUpPerSecond": None, "retryPolicy": None,
    }  # fmt: skip
    assert body["createdAt"].endswith("Z")


def test_the_secret_is_shown_once(api: ApiClient) -> None:
    service = register(api)
    assert "signingSecret" not in api.get(f"/services/{service['id']}").json["delivery"]
    assert "signingSecret" not in api.get("/services").json["items"][0]["delivery"]


def test_the_same_instance_twice_is_a_conflict(api: ApiClient) -> None:
    register(api)
    response = api.post("/services", {"name": "orders", "version": "1.0.0", "endpoint": "http://127.0.0.1:9000"})
    assert (response.status_code, response.json["code"]) == (409, "service_exists")
    register(api, endpoint="http://127.0.0.1:9001")  # another instance of the same service


def test_a_new_instance_takes_delivery_and_secret_of_its_name(api: ApiClient) -> None:
    first = register(api, delivery={"path": "/in", "retryPolicy": {"maxRetries": 7}})
    second = register(api, endpoint="http://127.0.0.1:9001")
    assert second["delivery"] == first["delivery"]
    third = register(api, endpoint="http://127.0.0.1:9002", delivery={"path": "/other"})
    assert third["delivery"]["path"] == "/other"
    assert third["delivery"]["signingSecret"] == first["delivery"]["signingSecret"]


@pytest.mark.parametrize(
    ("fields", "path"),
    [
        ({"name": "-bad"}, "name"),
        ({"name": 7}, "name"),
        ({"version": "1.0"}, "version"),
        ({"endpoint": "ftp://x"}, "endpoint"),
        ({"endpoint": "http://user:pw@x"}, "endpoint"),
        ({"endpoint": "http://x/?a=1"}, "endpoint"),
        ({"unknown": 1}, "unknown"),
        ({"id": "x"}, "id"),
        ({"weight": -1}, "weight"),
        ({"weight": "1"}, "weight"),
        ({"tags": ["a", "b,c"]}, "tags[1]"),
        ({"metadata": []}, "metadata"),
        ({"healthCheck": {}}, "healthCheck.url"),
        ({"healthCheck": {"url": "nope"}}, "healthCheck.url"),
        ({"healthCheck": {"type": "tcp"}}, "healthCheck.url"),
        ({"healthCheck": {"type": "grpc", "url": "http://x"}}, "healthCheck.type"),
        ({"healthCheck": {"url": "http://x", "interval": "30000"}}, "healthCheck.interval"),
        ({"healthCheck": {"url": "http://x", "interval": 0}}, "healthCheck.interval"),
        ({"healthCheck": {"url": "http://x", "expectedStatus": "6xx"}}, "healthCheck.expectedStatus"),
        ({"healthCheck": {"url": "tcp://x", "type": "tcp"}}, "healthCheck.url"),
        ({"healthCheck": {"url": "tcp://x:99999", "type": "tcp"}}, "healthCheck.url"),
        ({"healthCheck": {"url": "http://x", "type": "heartbeat"}}, "healthCheck.url"),
        ({"delivery": {"method": "post"}}, "delivery.method"),
        ({"delivery": {"headers": {"a b": "c"}}}, "delivery.headers.a b"),
        ({"delivery": {"headers": {"Host": "x"}}}, "delivery.headers.Host"),
        ({"delivery": {"retryPolicy": {"maxRetries": -1}}}, "delivery.retryPolicy.maxRetries"),
        ({"delivery": {"retryPolicy": {"tries": 1}}}, "delivery.retryPolicy.tries"),
        ({"delivery": {"signingSecret": "secret"}}, "delivery.signingSecret"),
    ],
)
def test_what_is_wrong_is_named(api: ApiClient, fields: dict[str, Any], path: str) -> None:
    body = {"name": "orders", "version": "1.0.0", "endpoint": "http://127.0.0.1:9000"} | fields
    response = api.post("/services", body)
    assert response.status_code == 422, response.json
    assert path in [error["path"].removesuffix(".[key]") for error in response.json["errors"]], response.json


def test_lists_filter_and_page_newest_first(api: ApiClient) -> None:
    ids = [register(api, name=f"s{n}", tags=["odd" if n % 2 else "even"])["id"] for n in range(5)]
    assert [item["id"] for item in api.get("/services").json["items"]] == ids[::-1]
    assert [item["name"] for item in api.get("/services?tag=odd").json["items"]] == ["s3", "s1"]
    assert [item["name"] for item in api.get("/services?name=s0,s4&status=active").json["items"]] == ["s4", "s0"]
    first = api.get("/services?limit=3").json
    rest = api.get(f"/services?limit=3&cursor={first['nextCursor']}").json
    assert [item["id"] for item in first["items"] + rest["items"]] == ids[::-1]
    assert rest["nextCursor"] is None


@pytest.mark.parametrize(
    "query", ["limit=0", "limit=201", "limit=x", "limit=", "cursor=x", "cursor=%00", "status=up", "foo=1", "name=a,,b",
              "limit=1&limit=2", "tag=%00"],
)  # fmt: skip
def test_a_bad_query_is_refused(api: ApiClient, query: str) -> None:
    assert api.get(f"/services?{query}").status_code == 422


def test_put_replaces_and_keeps_the_secret(api: ApiClient, database: Database) -> None:
    service = register(api, weight=5, tags=["a"], delivery={"path": "/in"})
    body = {"name": "orders", "version": "1.1.0", "endpoint": "http://127.0.0.1:9000", "status": "ignored", "id": 1}
    response = api.put(f"/services/{service['id']}", body)
    assert response.status_code == 200, response.json
    assert (response.json["version"], response.json["weight"], response.json["tags"]) == ("1.1.0", 1, [])
    assert response.json["delivery"]["path"] is None
    assert response.headers["ETag"] == '"2"'
    with database.read() as connection:
        sealed = connection.execute(text("select secret from service")).scalar_one()
    assert api.context.services._vault.open(sealed) == service["delivery"]["signingSecret"]
    assert service["delivery"]["signingSecret"] not in sealed


def test_what_get_answers_can_be_put_back(api: ApiClient) -> None:
    service = register(api, healthCheck={"url": "http://x/health"}, delivery={"timeout": 500, "catchUpPerSecond": 5})
    shown = api.get(f"/services/{service['id']}").json
    assert shown["delivery"]["catchUpPerSecond"] == 5
    response = api.put(f"/services/{service['id']}", shown)
    assert response.status_code == 200, response.json
    assert {**response.json, "updatedAt": None} == {**shown, "updatedAt": None}


def test_patch_merges_and_null_resets(api: ApiClient) -> None:
    service = register(api, weight=5, metadata={"a": {"b": 1, "c": 2}}, delivery={"path": "/in", "timeout": 99})
    patch = {"weight": None, "metadata": {"a": {"b": None}}, "delivery": {"timeout": None}, "health": "healthy"}
    patched = api.patch(f"/services/{service['id']}", patch).json
    assert patched["weight"] == 1
    assert patched["metadata"] == {"a": {"c": 2}}
    assert (patched["delivery"]["path"], patched["delivery"]["timeout"]) == ("/in", 10000)
    assert patched["health"] == "unknown"
    assert api.patch(f"/services/{service['id']}", {"name": None}).json["errors"][0]["path"] == "name"
    for unknown, place in (
        ({"nope": 1}, "nope"),
        ({"nope": None}, "nope"),
        ({"delivery": {"nope": None}}, "delivery.nope"),
    ):
        assert api.patch(f"/services/{service['id']}", unknown).json["errors"][0]["path"] == place
    assert api.patch(f"/services/{service['id']}", {"metadata": {"nope": None}}).status_code == 200
    assert api.patch(f"/services/{service['id']}", [1]).status_code == 422


def test_a_merge_patch_may_say_so(api: ApiClient) -> None:
    service = register(api)
    for path, change in (("", {"weight": 2}), ("/status", {"status": "maintenance"})):
        response = api.patch(f"/services/{service['id']}{path}", change, Content_Type="application/merge-patch+json")
        assert response.status_code == 200, response.json


def test_if_match_guards_every_change(api: ApiClient) -> None:
    path = f"/services/{register(api)['id']}"
    assert api.patch(path, {"weight": 2}, If_Match='"1"').headers["ETag"] == '"2"'
    for stale in ('"1"', 'W/"2"', "nonsense"):
        assert api.patch(path, {"weight": 3}, If_Match=stale).status_code == 412
        assert api.patch(f"{path}/status", {"status": "inactive"}, If_Match=stale).status_code == 412
        assert api.delete(path, If_Match=stale).status_code == 412
    assert api.patch(f"{path}/status", {"status": "inactive"}, If_Match='"2"').headers["ETag"] == '"3"'
    assert api.delete(path, If_Match="*").status_code == 204


def test_maintenance_and_the_last_instances_end_close_the_lane(api: ApiClient, database: Database) -> None:
    assert gate_of(database, "orders") == "no_instance"
    path = f"/services/{register(api)['id']}"
    assert gate_of(database, "orders") is None
    assert api.patch(f"{path}/status", {"status": "maintenance"}).json["status"] == "maintenance"
    assert gate_of(database, "orders") == "maintenance"
    api.patch(f"{path}/status", {"status": "active"})
    assert gate_of(database, "orders") is None
    api.patch(path, {"name": "sales"})
    assert (gate_of(database, "orders"), gate_of(database, "sales")) == ("no_instance", None)
    assert api.patch(f"{path}/status", {"status": "gone"}).status_code == 422
    assert api.patch(f"{path}/status", {}).status_code == 422


def test_every_change_moves_the_revision_and_leaves_a_trace(api: ApiClient) -> None:
    def revision() -> int:
        return api.context.revisions.refresh()["services"]

    before = revision()
    path = f"/services/{register(api)['id']}"
    api.patch(path, {"weight": 2})
    api.patch(f"{path}/status", {"status": "inactive"})
    api.delete(path)
    assert revision() == before + 4
    trail = api.get("/system/audit?resource=service").json["items"]
    assert [entry["action"] for entry in trail] == ["delete", "status", "change", "create"]
    assert all(entry["actor"] == "operator" and entry["name"] == "orders" for entry in trail)
    assert trail[2]["detail"] == {"fields": ["weight"]}


def test_deregistering_the_last_instance_ends_its_open_deliveries(api: ApiClient, database: Database) -> None:
    def open_delivery() -> str:
        delivery = str(uuid4())
        with database.transaction() as connection:
            connection.execute(
                text(
                    "insert into job (id, pool, lane_id, message_id) values (:id, 2, esb_lane(2::smallint, 'orders'), :id)"
                ),
                {"id": delivery},
            )
        return delivery

    def ended(delivery: str) -> Any:
        with database.read() as connection:
            return connection.execute(text("select class from delivery where id = :id"), {"id": delivery}).scalar()

    first, second = register(api), register(api, endpoint="http://127.0.0.1:9001")
    delivery = open_delivery()
    assert api.delete(f"/services/{first['id']}").status_code == 204
    assert ended(delivery) is None
    assert api.delete(f"/services/{second['id']}").status_code == 204
    assert ended(delivery) == "service_deleted"
    assert api.get(f"/services/{first['id']}").status_code == 404
    assert api.delete(f"/services/{first['id']}").status_code == 404


def test_a_health_check_hangs_on_the_registration(api: ApiClient, database: Database) -> None:
    service = register(api)
    path = f"/services/{service['id']}"
    assert probe_job(database, service["id"]) is None
    api.patch(path, {"healthCheck": {"url": "http://127.0.0.1:1/health"}})
    assert probe_job(database, service["id"]) == "r"
    api.patch(path, {"healthCheck": None})
    assert probe_job(database, service["id"]) is None
    api.patch(path, {"healthCheck": {"type": "heartbeat", "interval": 1000}})
    assert api.get(path).json["healthCheck"]["ttl"] == 3000
    api.delete(path)
    assert probe_job(database, service["id"]) is None


def test_discovery_knows_npm_ranges_status_and_tags(api: ApiClient, database: Database) -> None:
    versions = ["1.2.0", "1.3.5", "2.0.0", "2.1.0-rc.1"]
    services = [
        register(api, version=v, endpoint=f"http://127.0.0.1:900{n}", tags=[f"t{n}"]) for n, v in enumerate(versions)
    ]

    def found(query: str = "") -> list[str]:
        return [item["version"] for item in api.get(f"/services/discover/orders{query}").json["items"]]

    assert found() == ["2.1.0-rc.1", "2.0.0", "1.3.5", "1.2.0"]
    assert found("?version=^1.2") == ["1.3.5", "1.2.0"]
    assert found("?version=~1.2.0+||+2.x") == ["2.0.0", "1.2.0"]
    assert found("?tag=t0,t2") == ["2.0.0", "1.2.0"]
    assert api.get("/services/discover/orders?version=nope").json["errors"][0]["path"] == "version"
    api.patch(f"/services/{services[1]['id']}/status", {"status": "maintenance"})
    with database.transaction() as connection:
        connection.execute(
            text("update service_state set health = 'unhealthy' where service_id = :id"), {"id": services[0]["id"]}
        )
    assert found("?version=^1") == []
    assert found("?version=*") == ["2.0.0"]
    assert api.get("/services/discover/nobody").json == {"items": [], "nextCursor": None}


def test_discovery_pages_like_any_list(api: ApiClient) -> None:
    for n, version in enumerate(["1.9.0", "1.10.0", "1.9.0", "2.0.0-rc.1"]):
        register(api, version=version, endpoint=f"http://127.0.0.1:900{n}")
    path, seen, cursor = "/services/discover/orders", [], ""
    while cursor is not None:
        page = api.get(f"{path}?limit=1{cursor and f'&cursor={cursor}'}").json
        seen += page["items"]
        cursor = page["nextCursor"]
    assert [item["version"] for item in seen] == ["2.0.0-rc.1", "1.10.0", "1.9.0", "1.9.0"]
    assert {item["status"] for item in seen} == {"active"}
    assert len({item["id"] for item in seen}) == 4
    assert api.get(f"{path}?cursor=nonsense").status_code == 422
    assert api.get(f"{path}?limit=0").status_code == 422


@pytest.mark.parametrize(
    "url", ["tcp://127.0.0.1:5432", "127.0.0.1:5432", "[::1]:5432", "http://127.0.0.1:3001/health"]
)
def test_a_tcp_check_takes_a_host_and_a_port_in_any_spelling(api: ApiClient, url: str) -> None:
    assert register(api, healthCheck={"type": "tcp", "url": url})["healthCheck"]["url"] == url


def test_a_secret_is_rotated_with_overlap(api: ApiClient) -> None:
    service = register(api)
    rotate = f"/services/{service['id']}/signing-secret/rotate"
    first = api.post(rotate)
    assert first.status_code == 200, first.json
    assert first.json["signingSecret"] != service["delivery"]["signingSecret"]
    from datetime import UTC, datetime

    row = api.context.services.get(service["id"])
    secrets = api.context.services.signing_secrets(row, datetime.now(UTC))
    assert secrets == [first.json["signingSecret"], service["delivery"]["signingSecret"]]
    assert api.post(rotate, {"overlap": 0}).json["previousExpiresAt"] is None
    assert len(api.context.services.signing_secrets(api.context.services.get(service["id"]), datetime.now(UTC))) == 1
    assert api.post(rotate, {"overlap": -1}).status_code == 422


def test_a_service_key_is_shown_once_and_can_be_revoked(api: ApiClient) -> None:
    path = f"/services/{register(api)['id']}/keys"
    made = api.post(path)
    assert made.status_code == 201
    assert made.headers["Cache-Control"] == "no-store"
    assert made.json["apiKey"].startswith(f"esbs_{made.json['id']}_")
    assert [key["id"] for key in api.get(path).json["items"]] == [made.json["id"]]
    service = api.with_key(made.json["apiKey"])
    assert service.get("/services").status_code == 403
    assert service.get("/clients/self/usage").status_code == 403
    assert api.delete(f"{path}/{made.json['id']}").status_code == 204
    assert service.get("/services").status_code == 401
    assert api.delete(f"{path}/{made.json['id']}").status_code == 404


@pytest.mark.parametrize("service_id", ["x", "0190b5d3", "01900000-0000-7000-8000-000000000000", "%00"])
def test_an_unknown_or_malformed_id_is_not_found(api: ApiClient, service_id: str) -> None:
    for method, path in [("GET", ""), ("DELETE", ""), ("GET", "/health"), ("POST", "/keys"), ("GET", "/keys")]:
        assert api.call(method, f"/services/{service_id}{path}").status_code == 404


def test_a_heartbeat_makes_healthy_and_only_its_own_key_may_send_it(api: ApiClient) -> None:
    first = register(api, healthCheck={"type": "heartbeat", "ttl": 60_000})
    second = register(api, endpoint="http://127.0.0.1:9001", healthCheck={"type": "heartbeat"})
    plain = register(api, endpoint="http://127.0.0.1:9002")
    key = api.with_key(api.post(f"/services/{first['id']}/keys").json["apiKey"])
    beat = key.post(f"/services/{first['id']}/heartbeat")
    assert beat.status_code == 200, beat.json
    assert (beat.json["ok"], beat.json["health"], beat.json["changed"]) == (True, "healthy", True)
    assert key.post(f"/services/{first['id'].upper()}/heartbeat").json["changed"] is False
    assert key.post(f"/services/{second['id']}/heartbeat").status_code == 403
    assert api.post(f"/services/{second['id']}/heartbeat").status_code == 200
    assert api.post(f"/services/{plain['id']}/heartbeat").json["code"] == "no_health_check"
    shown = api.get(f"/services/{first['id']}")
    assert (shown.json["health"], shown.json["lastCheck"]["ok"]) == ("healthy", True)
    assert shown.headers["ETag"] == '"1"'  # what the bus finds out is no change of what was written
    history = api.get(f"/services/{first['id']}/health").json["items"]
    assert [(check["seq"], check["health"], check["changed"]) for check in history] == [
        (1, "healthy", True),
        (2, "healthy", False),
    ]


def test_the_history_of_checks_pages_oldest_first(api: ApiClient) -> None:
    service = register(api, healthCheck={"type": "heartbeat"})
    path = f"/services/{service['id']}"
    for _ in range(5):
        api.post(f"{path}/heartbeat")
    first = api.get(f"{path}/health?limit=3").json
    rest = api.get(f"{path}/health?limit=3&cursor={first['nextCursor']}").json
    assert [check["seq"] for check in first["items"] + rest["items"]] == [1, 2, 3, 4, 5]
    assert rest["nextCursor"] is None
    assert api.get(f"{path}/health?cursor=abc").status_code == 422


def test_a_probe_looks_at_once(api: ApiClient) -> None:
    with Receiver() as receiver:
        service = register(api, healthCheck={"url": receiver.url, "healthyThreshold": 1})
        probe = api.post(f"/services/{service['id']}/probe")
    assert probe.status_code == 200, probe.json
    assert (probe.json["ok"], probe.json["statusCode"], probe.json["health"]) == (True, 200, "healthy")
    api.patch(f"/services/{service['id']}", {"healthCheck": {"url": "http://127.0.0.1:1/"}})
    failed = api.post(f"/services/{service['id']}/probe").json
    assert (failed["ok"], failed["health"]) == (False, "degraded")
    assert failed["error"]
    assert (
        api.post(f"/services/{register(api, endpoint='http://127.0.0.1:9001')['id']}/probe").json["code"]
        == "no_health_check"
    )
