"""A stage for one pattern: services and routes that are taken away again when it is over."""

from __future__ import annotations

import sys
import time
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self

sys.path.insert(0, str(Path(__file__).parents[1]))

from receiver import Service, connect


class Scene:
    """`with Scene("splitter") as scene: …`: names of services and routes are the pattern's own."""

    def __init__(self, pattern: str) -> None:
        self.pattern = pattern
        self.bus = connect()
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def name(self, short: str) -> str:
        """A service's full name."""
        return f"{self.pattern}-{short}"

    def service(self, short: str, answer: Any = lambda path, body: (200, {})) -> Service:
        """A service that runs here; `answer(path, body)` gives status and JSON."""
        service = self._stack.enter_context(Service(answer))
        made = self.bus.services.create({"name": self.name(short), "version": "1.0.0", "endpoint": service.url})
        self._stack.callback(self.bus.services.delete, made["id"])
        return service

    def route(self, short: str = "route", topic: str = "#", **fields: Any) -> dict[str, Any]:
        """A route for messages of this pattern alone."""
        body = {"name": self.name(short), "pattern": f"{self.pattern}.{topic}"} | fields
        made: dict[str, Any] = self.bus.routes.create(body)
        self._stack.callback(self.bus.routes.delete, made["id"])
        return made

    def send(self, payload: Any, topic: str = "made", wait: int = 10, **fields: Any) -> dict[str, Any]:
        """Send a message, and wait for its end; with wait=0 for its acceptance alone."""
        body = {"source": "examples", "messageType": f"{self.pattern}.{topic}", "payload": payload} | fields
        answer: dict[str, Any] = self.bus.send(body, wait=wait) if wait else self.bus.send(body)
        return answer

    def got(self, service: Service, count: int = 1) -> list[Any]:
        """What a service was sent, once there is so much of it."""
        deadline = time.monotonic() + 15
        while len(service.calls) < count:
            assert time.monotonic() < deadline, f"{count} calls were expected, {len(service.calls)} came"
            time.sleep(0.02)
        return [body for _, _, body in service.calls]
