"""Messages that start workflows: a route's destination may be one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from esb_workers import worker
from esb_workers.app import make_celery
from esb_workers.orchestration.from_message import Asked, MessageStarts
from esb_workers.runtime.ringer import Ringer
from esb_workers.settings import Settings
from esb_workers.store.engine import Database
from esb_workers.store.ids import new_id
from tests.support.api import ApiClient

Eventually = Callable[..., None]
SET = {"id": "s", "type": "set", "config": {"variables": {"seen": "${id}"}}}


@pytest.fixture
def pools(settings: Settings, database: Database) -> Iterator[None]:
    """Routing, delivery and orchestration in this process; no broker, so they look for themselves."""
    settings = settings.model_copy(update={"sweep_seconds": 0.2, "lease_seconds": 5.0})
    ringer = Ringer(make_celery(settings))
    engines = [
        worker.make_engine(settings, pool, database, ringer, 4) for pool in ("routing", "delivery", "orchestration")
    ]
    for engine in engines:
        engine.start()
    yield
    for engine in engines:
        engine.stop(5)
    ringer.close()


def define(api: ApiClient, name: str = "onboard", version: str = "1.0.0", **definition: Any) -> None:
    body = {"name": name, "version": version, "definition": {"steps": [SET]} | definition}
    assert api.post("/orchestration/workflows", body).status_code == 201


def route(api: ApiClient, **destination: Any) -> Any:
    body = {"name": "r", "pattern": "user.*", "destinations": [{"workflow": "onboard", **destination}]}
    return api.post("/routing/routes", body)


def send(api: ApiClient, payload: Any, **more: Any) -> Any:
    message = {"source": "t", "messageType": "user.created", "payload": payload, **more}
    return api.post("/routing/send", message, Prefer="wait=10").json


def test_a_message_starts_a_run_with_its_payload(api: ApiClient, pools: None, eventually: Eventually) -> None:
    define(api)
    assert route(api).status_code == 201
    message = send(api, {"id": 7}, correlationId="corr-7")
    (delivery,) = message["deliveries"]
    assert (message["status"], delivery["status"], delivery["destination"]) == (
        "delivered",
        "delivered",
        "workflow:onboard",
    )
    (attempt,) = delivery["attempts"]
    assert attempt["statusCode"] == 202
    (run,) = api.get("/orchestration/executions").json["items"]
    assert run["id"] in attempt["responseBody"] and run["correlationId"] == "corr-7"
    eventually(lambda: api.get(f"/orchestration/executions/{run['id']}").json["status"] == "completed")
    assert api.get(f"/orchestration/executions/{run['id']}").json["output"] == {"id": 7, "seen": 7}


def test_the_payload_may_be_shaped_first_and_need_not_be_an_object(api: ApiClient, pools: None) -> None:
    define(api)
    assert route(api, transformation={"type": "template", "output": {"id": "${payload[0]}"}}).status_code == 201
    send(api, [5])
    (run,) = api.get("/orchestration/executions").json["items"]
    assert api.get(f"/orchestration/executions/{run['id']}").json["initialContext"] == {"id": 5}


def test_a_delivery_is_held_until_its_workflow_is_there(api: ApiClient, pools: None, eventually: Eventually) -> None:
    assert route(api, version="2.0.0").status_code == 201
    sent = api.post("/routing/send", {"source": "t", "messageType": "user.created", "payload": {"id": 1}}).json
    path = f"/routing/messages/{sent['messageId']}"
    eventually(lambda: [d["status"] for d in api.get(path).json["deliveries"]] == ["held"])
    define(api, version="2.0.0")
    eventually(lambda: api.get(path).json["status"] == "delivered", 15)


def test_a_payload_that_the_workflow_does_not_take_is_a_dead_letter(api: ApiClient, pools: None) -> None:
    define(api, inputSchema={"type": "object", "required": ["email"]})
    route(api)
    message = send(api, {"id": 1})
    assert message["status"] == "failed"
    (letter,) = api.get("/routing/dead-letters?errorClass=ValidationError").json["items"]
    assert letter["destination"] == "workflow:onboard" and "email" in letter["lastAttempt"]["error"]


def test_a_clients_run_stays_its_own(api: ApiClient, pools: None) -> None:
    define(api)
    route(api)
    key = api.post("/clients", {"name": "c", "allowedServices": ["some-service"]}).json["apiKey"]
    client = api.with_key(key)
    assert send(client, {"id": 1})["status"] == "delivered"
    assert len(client.get("/orchestration/executions").json["items"]) == 1


def test_a_delivery_tried_again_after_a_crash_finds_the_run_it_started(
    api: ApiClient, settings: Settings, database: Database
) -> None:
    define(api)
    starts = MessageStarts(database, Ringer(make_celery(settings)))
    asked = Asked(new_id(), "onboard", None, '{"id": 1}', None, "c", None, 5)
    first, second = starts.start(asked), starts.start(asked)
    assert first == second and first is not None and first.execution_id is not None
    assert len(api.get("/orchestration/executions").json["items"]) == 1


@pytest.mark.parametrize(
    ("destination", "path"),
    [
        ({"workflow": "no such name!"}, "destinations[0].workflow"),
        ({"workflow": "w", "version": "latest"}, "destinations[0].version"),
        ({"workflow": "w", "service": "s"}, "destinations[0].service"),
        ({"workflow": "w", "path": "/x"}, "destinations[0].path"),
    ],
)
def test_what_is_wrong_with_such_a_destination_is_named(api: ApiClient, destination: Any, path: str) -> None:
    refused = api.post("/routing/routes", {"name": "r", "pattern": "a", "destinations": [destination]})
    assert (refused.status_code, refused.json["errors"][0]["path"]) == (422, path)


@pytest.mark.parametrize(("there", "status"), [(True, "completed"), (False, "failed")])
def test_a_publish_step_waits_for_its_delivery(
    api: ApiClient, pools: None, eventually: Eventually, there: bool, status: str
) -> None:
    define(api)
    if there:
        route(api)
    config = {"messageType": "user.created", "payload": {"id": 3}, "waitForDelivery": True}
    define(api, "teller", steps=[{"id": "p", "type": "publish", "config": config}])
    started = api.post("/orchestration/execute", {"workflowName": "teller"}).json
    path = f"/orchestration/executions/{started['executionId']}"
    eventually(lambda: api.get(path).json["status"] == status, 15)
    run = api.get(path).json
    if there:
        assert run["steps"][0]["output"]["status"] == "delivered"
        assert len(api.get("/orchestration/executions").json["items"]) == 2
    else:
        assert (run["error"]["class"], run["error"]["status"]) == ("DeliveryFailed", "unroutable")
    assert len(api.get("/routing/logs?messageType=user.created").json["items"]) == 1
