"""What happens in the demo, told while it happens: registrations, messages, workflows, all over the REST API."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

from esb_api.cli.demo import documents
from esb_api.cli.demo.services import Answer, Call, ExampleService
from esb_api.client import ApiError, Client

Json = dict[str, Any]
T = TypeVar("T")

GITHUB_CORRELATION: Final = "github-demo"
_PATIENCE: Final = 60.0  # seconds for anything that takes time
_FINAL: Final = frozenset({"delivered", "partially_delivered", "failed", "unroutable", "expired", "cancelled"})
_ENDED: Final = frozenset({"completed", "failed", "cancelled", "compensated", "timed_out"})


class DemoFailed(Exception):
    """Something did not happen as it should."""


@dataclass
class Outcome:
    """What the report at the end shows."""

    services: list[Json] = field(default_factory=list)
    calls: dict[str, int] = field(default_factory=dict)
    messages: list[Json] = field(default_factory=list)
    executions: list[Json] = field(default_factory=list)


class Story:
    """The demo's run against one bus. `say` gets a line for each thing that happened."""

    def __init__(self, url: str, admin_key: str, say: Callable[[str], None]) -> None:
        self._url = url
        self._key = admin_key
        self._bus = Client(url, admin_key)
        self._say = say

    @contextmanager
    def services(self) -> Iterator[dict[str, ExampleService]]:
        """The example services, running."""
        plain = ("analytics-service", "pager", "ci-service", "audit-service")
        behaviours = {"user-service": _user_service, "email-service": _fails_once, "triage-service": self._start_triage}
        with ExitStack() as stack:
            made = [ExampleService(name) for name in plain]
            made += [ExampleService(name, behaviour) for name, behaviour in behaviours.items()]
            yield {service.name: stack.enter_context(service) for service in made}

    def tell(self, services: dict[str, ExampleService]) -> Outcome:
        """Everything, from the first registration on. Raises DemoFailed, ApiError."""
        with self._bus:
            return self._tell(services)

    def _tell(self, services: dict[str, ExampleService]) -> Outcome:
        self._register(services.values())
        user = self._send_user_message()
        onboarding = self._onboard()
        github = self._send_github()
        triage = self._triage_run()
        return Outcome(
            services=list(self._bus.services.every()),
            calls={name: len(service.calls) for name, service in services.items()},
            messages=[*user, *github],
            executions=[onboarding, triage],
        )

    def _register(self, services: Iterable[ExampleService]) -> None:
        registered = [self._bus.services.create(documents.service(s.name, s.endpoint)) for s in services]
        self._say(f"registered {len(registered)} services: {', '.join(s['name'] for s in registered)}")
        for service in registered:
            self._bus.services.act(service["id"], "probe")
        self._wait("the services to be found healthy", self._all_healthy)
        self._say("probed them: all are healthy")
        for route in (documents.USER_ROUTE, *documents.GITHUB_ROUTES):
            self._bus.routes.create(route)
        self._say(f"made {1 + len(documents.GITHUB_ROUTES)} routes by topic, condition and expression")
        for workflow in (documents.ONBOARDING, documents.TRIAGE):
            self._bus.workflows.create(workflow)
        self._say("made 2 workflows: user-onboarding, issue-triage")

    def _all_healthy(self) -> bool:
        return all(service["health"] == "healthy" for service in self._bus.services.every())

    def _send_user_message(self) -> list[Json]:
        """The specification's message, once by the operator and once by a client that may reach one service only."""
        client = self._bus.clients.create(documents.CLIENT)
        self._say("registered the client mobile-app: user-service and order-service, 100 a minute, 1000 an hour")
        with Client(self._url, client["apiKey"]) as mobile_app:
            ids = [bus.send(documents.USER_MESSAGE)["messageId"] for bus in (self._bus, mobile_app)]
        self._say("sent user.created as the operator, and again as mobile-app")
        messages = self._final_messages(ids)
        self._say(f"  as the operator: {_deliveries(messages[0])}")
        self._say(f"  as mobile-app:   {_deliveries(messages[1])}")
        return messages

    def _onboard(self) -> Json:
        workflow = next(self._bus.workflows.every(name="user-onboarding"))
        body = {"workflowId": workflow["id"], "initialContext": documents.NEW_USER}
        started = self._bus.execute(body)["executionId"]
        self._say("started user-onboarding; email-service will fail once")
        run = self._final_execution(started)
        for step in run["steps"]:
            self._say(f"  {step['id']}: {step['status']} after {_times(step['attempts'])}")
        return run

    def _send_github(self) -> list[Json]:
        messages = documents.github_messages(GITHUB_CORRELATION)
        answer = self._bus.call("POST", "/routing/send/batch", {"messages": messages})
        refused = [item for item in answer["items"] if "error" in item]
        if refused:
            raise DemoFailed(f"a GitHub payload was refused: {refused[0]['error'].get('detail')}")
        self._say(f"sent {len(messages)} GitHub webhooks: 12 real ones, and a failed check and a new issue made of two")
        final = self._final_messages([item["messageId"] for item in answer["items"]])
        self._say(f"  {sum(len(m['deliveries']) for m in final)} deliveries, chosen by content")
        return final

    def _start_triage(self, call: Call, number: int) -> Answer:
        """What triage-service does with a new issue: it starts the workflow, once however often it is told."""
        start = {
            "workflowName": "issue-triage",
            "initialContext": {"issue": call.body["issue"]},
            "correlationId": call.correlation_id,
            "businessKey": str(call.body["issue"]["number"]),
        }
        try:
            with Client(self._url, self._key) as bus:
                bus.execute(start, idempotency_key=call.idempotency_key)
        except ApiError as error:
            return Answer(503, {"error": str(error)})
        return Answer(202, {"started": "issue-triage"})

    def _triage_run(self) -> Json:
        runs = self._wait(
            "the triage workflow to start",
            lambda: list(self._bus.executions.every(correlationId=GITHUB_CORRELATION)),
        )
        run = self._final_execution(runs[0]["id"])
        decision = run.get("output") or {}
        self._say(f"the new issue went through issue-triage: {decision.get('team')}, {decision.get('urgency')}")
        return run

    def _final_messages(self, ids: list[str]) -> list[Json]:
        def look() -> list[Json] | None:
            messages = [self._bus.messages.get(i) for i in ids]
            return messages if all(m["status"] in _FINAL for m in messages) else None

        return self._wait("the messages to arrive", look)

    def _final_execution(self, execution_id: str) -> Json:
        def look() -> Json | None:
            run = self._bus.executions.get(execution_id)
            return run if run["status"] in _ENDED else None

        run = self._wait("the workflow to end", look)
        if run["status"] != "completed":
            raise DemoFailed(f"the workflow ended as {run['status']}: {run.get('error')}")
        return run

    def _wait(self, what: str, look: Callable[[], T | None]) -> T:
        deadline = time.monotonic() + _PATIENCE
        while True:
            found = look()
            if found:
                return found
            if time.monotonic() > deadline:
                raise DemoFailed(f"waited {_PATIENCE:.0f} s for {what}")
            time.sleep(0.1)


def _user_service(call: Call, number: int) -> Answer:
    if call.path.endswith("/createUser"):
        return Answer(200, {"userId": "user-1001"})
    return Answer(200, {"received": True})


def _fails_once(call: Call, number: int) -> Answer:
    return Answer(503, {"error": "busy, try again"}) if number == 1 else Answer(200, {"sent": True})


def _deliveries(message: Json) -> str:
    return ", ".join(f"{d['destination']} {d['status']}" for d in message["deliveries"]) or message["status"]


def _times(count: int) -> str:
    return "1 try" if count == 1 else f"{count} tries"
