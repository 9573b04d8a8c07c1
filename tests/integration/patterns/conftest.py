"""A bus in this process, with services that note what they are sent: where each integration pattern is tried."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from esb_workers.settings import Settings
from esb_workers.store.engine import Database
from tests.support.api import ApiClient
from tests.support.bus import wait_until
from tests.support.engines import Engines
from tests.support.receiver import Hit, Receiver, Reply

FINAL = frozenset({"delivered", "partially_delivered", "failed", "unroutable", "expired", "cancelled"})


class Scene:
    """`scene.service("a")`, `scene.route(…)`, `scene.send(…)`, and then what each service was sent."""

    def __init__(self, api: ApiClient, settings: Settings, database: Database, stack: ExitStack) -> None:
        self.api, self.settings, self.database = api, settings, database
        self.services: dict[str, Receiver] = {}
        self._stack = stack

    def service(self, name: str, answer: Callable[[Hit], Reply] | None = None, **fields: Any) -> Receiver:
        """A registered service."""
        receiver = self._stack.enter_context(Receiver())
        if answer is not None:
            receiver.answer = answer
        body = {"name": name, "version": "1.0.0", "endpoint": receiver.url} | fields
        made = self.api.post("/services", body)
        assert made.status_code == 201, made.json
        self.services[name] = receiver
        return receiver

    def route(self, **fields: Any) -> dict[str, Any]:
        """A route for everything, unless it says otherwise."""
        made = self.api.post("/routing/routes", {"name": "route", "pattern": "#"} | fields)
        assert made.status_code == 201, made.json
        shown: dict[str, Any] = made.json
        return shown

    def faults(self, **fields: Any) -> set[str]:
        """The fields of a route that are found wrong."""
        refused = self.api.post("/routing/routes", {"name": "route", "pattern": "#", "destinations": ["a"]} | fields)
        assert refused.status_code == 422, refused.json
        return {fault["path"] for fault in refused.json["errors"]}

    def send(self, payload: Any = None, **fields: Any) -> str:
        """Send a message; its id."""
        body = {"source": "shop", "messageType": "order.placed", "payload": payload} | fields
        sent = self.api.post("/routing/send", body)
        assert sent.status_code == 202, sent.json
        return str(sent.json["messageId"])

    def message(self, message_id: str) -> dict[str, Any]:
        """A message as the API shows it."""
        shown: dict[str, Any] = self.api.get(f"/routing/messages/{message_id}").json
        return shown

    def ended(self, message_id: str, seconds: float = 10) -> dict[str, Any]:
        """A message once it has come to its end."""

        def final() -> dict[str, Any] | None:
            shown = self.message(message_id)
            return shown if shown["status"] in FINAL else None

        found: dict[str, Any] = wait_until(final, seconds, f"the end of {message_id}")
        return found

    def work(self) -> Engines:
        """Routing and delivery, for a `with`."""
        return Engines(self.settings, self.database)

    def got(self, name: str, count: int = 1, seconds: float = 10) -> list[Any]:
        """The payloads that a service was sent, once there are so many."""
        hits = self.services[name].hits
        wait_until(lambda: len(hits) >= count, seconds, f"{count} calls of {name}")
        return [hit.json for hit in hits]


@pytest.fixture
def scene(api: ApiClient, settings: Settings, database: Database) -> Iterator[Scene]:
    """Services, routes and messages, before any worker runs."""
    with ExitStack() as stack:
        yield Scene(api, settings, database, stack)


@pytest.fixture
def running(scene: Scene) -> Iterator[Scene]:
    """The same, with routing and delivery at work."""
    with scene.work():
        yield scene
