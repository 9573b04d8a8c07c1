"""The specification walked call by call, with exactly its bodies, against a whole running bus."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.bus import RunningBus, wait_until
from tests.support.receiver import Hit, Receiver, Reply
from tests.support.specification import USER_ONBOARDING


class Story:
    """The bus and the services of the specification, shared by the tests of this module, which run in order."""

    def __init__(self, bus: RunningBus, users: Receiver, analytics: Receiver, mail: Receiver) -> None:
        self.bus, self.users, self.analytics, self.mail = bus, users, analytics, mail


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Story]:
    with (
        RunningBus(tmp_path_factory.mktemp("spec")) as bus,
        Receiver() as users,
        Receiver() as analytics,
        Receiver() as mail,
    ):
        yield Story(bus, users, analytics, mail)


def test_register_a_service(story: Story) -> None:
    body = {
        "name": "user-service",
        "version": "1.0.0",
        "endpoint": story.users.url,
        "healthCheck": {"url": f"{story.users.url}/health", "interval": 30000, "timeout": 5000},
    }
    answer = story.bus.post("/services", body)
    assert answer.status == 201
    assert answer.headers["Location"] == f"/services/{answer.body['id']}"
    assert {k: answer.body[k] for k in ("name", "version", "endpoint", "status")} == {
        "name": "user-service", "version": "1.0.0", "endpoint": story.users.url, "status": "active",
    }  # fmt: skip
    assert answer.body["delivery"]["signingSecret"].startswith("whsec_")
    wait_until(lambda: story.bus.get(f"/services/{answer.body['id']}").body["health"] == "healthy", 30, "a probe")
    for name, receiver in (("analytics-service", story.analytics), ("email-service", story.mail)):
        story.bus.create("/services", {"name": name, "version": "1.0.0", "endpoint": receiver.url})


def test_get_all_services(story: Story) -> None:
    items = story.bus.get("/services").body["items"]
    assert {s["name"] for s in items} == {"user-service", "analytics-service", "email-service"}
    assert all("signingSecret" not in s["delivery"] for s in items)


def test_update_service_status(story: Story) -> None:
    service = story.bus.get("/services?name=analytics-service").body["items"][0]["id"]
    for status in ("maintenance", "active"):
        answer = story.bus.call("PATCH", f"/services/{service}/status", {"status": status})
        assert (answer.status, answer.body["status"]) == (200, status)


def test_register_a_client_and_get_all_clients(story: Story) -> None:
    body = {
        "name": "mobile-app",
        "allowedServices": ["user-service", "order-service"],
        "rateLimits": {"requestsPerMinute": 100, "requestsPerHour": 1000},
    }
    made = story.bus.create("/clients", body)
    assert made["apiKey"].startswith("esb_")
    (listed,) = story.bus.get("/clients").body["items"]
    assert listed["name"] == "mobile-app" and "apiKey" not in listed


def test_route_and_send_a_message_and_get_its_log(story: Story) -> None:
    route = {
        "name": "user-events",
        "pattern": "user.*",
        "destinations": ["user-service", "analytics-service"],
        "conditions": {"header.eventType": "user.created"},
    }
    story.bus.create("/routing/routes", route)
    message = {
        "source": "api-gateway",
        "messageType": "user.created",
        "payload": {"userId": "123", "email": "user@example.com"},
        "headers": {"eventType": "user.created"},
    }
    sent = story.bus.post("/routing/send", message, X_Correlation_ID="abc-123")
    assert sent.status == 202 and sent.body["status"] == "accepted" and sent.body["correlationId"] == "abc-123"
    wait_until(lambda: story.bus.message(sent.body["messageId"])["status"] == "delivered", 30, "both deliveries")
    (hit,) = story.analytics.hits
    assert hit.json == message["payload"] and hit.headers["ce-type"] == "user.created"
    assert hit.headers["x-correlation-id"] == "abc-123" and hit.headers["webhook-signature"].startswith("v1,")
    (logged,) = story.bus.get("/routing/logs?correlationId=abc-123").body["items"]
    assert logged["messageId"] == sent.body["messageId"] and len(logged["deliveries"]) == 2


def test_create_and_execute_the_onboarding_workflow_with_a_retry_in_it(story: Story) -> None:
    failures = iter([503])

    def user_service(hit: Hit) -> Reply:
        return Reply.json({"userId": "u-42"}) if hit.path == "/createUser" else Reply()

    story.users.answer = user_service
    story.mail.answer = lambda hit: Reply(next(failures, 200))
    workflow = story.bus.create("/orchestration/workflows", USER_ONBOARDING)
    context = {"email": "user@example.com", "name": "John Doe"}
    started = story.bus.post("/orchestration/execute", {"workflowId": workflow["id"], "initialContext": context})
    assert started.status == 202 and started.body["status"] == "pending"
    run = started.body["executionId"]
    wait_until(lambda: story.bus.execution(run)["status"] == "completed", 30, "the run")
    first, second = story.mail.hits
    assert first.json == second.json == {"userId": "u-42", "email": "user@example.com"}
    assert first.key == second.key == f"{run}:send-welcome-email"
    assert second.at - first.at >= 0.8, "the first retry comes after a second, less its jitter"
    done = story.bus.execution(run)
    assert [(s["id"], s["status"], s["attempts"]) for s in done["steps"]] == [
        ("create-user", "completed", 1),
        ("send-welcome-email", "completed", 2),
    ]
    assert done["context"]["userId"] == "u-42"


def test_what_a_caller_sends_wrong_is_named(story: Story) -> None:
    answer = story.bus.post("/services", {"name": "x", "version": "one", "endpoint": story.users.url, "colour": "red"})
    assert answer.status == 422 and answer.headers["Content-Type"] == "application/problem+json"
    assert {e["path"] for e in answer.body["errors"]} == {"version", "colour"}


def test_faces(story: Story, tmp_path: Path) -> None:
    for path in ("/health/live", "/health/ready", "/openapi.json", "/docs"):
        assert story.bus.call("GET", path, key="none").status == 200, path
    metrics = story.bus.get("/metrics").body
    for name in (
        "esb_requests",
        "esb_queue_depth",
        "esb_queue_oldest_due_age_seconds",
        "esb_attempts",
        "esb_executions",
    ):
        assert name in metrics, name
