"""A whole bus, started as a user starts it: `esb up` in a process of its own."""

from __future__ import annotations

import json
import os
import secrets
import signal
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self
from urllib.parse import quote

import psutil
import requests

ESB = str(Path(sys.executable).parent / "esb")


class Answer(NamedTuple):
    """What the API answered."""

    status: int
    body: Any
    headers: Any


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_until(condition: Callable[[], Any], seconds: float = 30, what: str = "the condition") -> Any:
    """The condition's first true value. Raises AssertionError after `seconds`."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        if time.monotonic() > deadline:
            raise AssertionError(f"{what} did not come true within {seconds} s")
        time.sleep(0.05)
    return value


class RunningBus:
    """`with RunningBus(folder) as bus: bus.post("/services", {…})`. Settings by keyword: `lease_seconds=3`."""

    def __init__(self, folder: Path, *arguments: str, **settings: Any) -> None:
        self.folder = folder
        self.admin_key = secrets.token_urlsafe(24)
        self.port = free_port()
        self._arguments = arguments
        self._settings = {"ADMIN_KEY": self.admin_key, "DATA_DIR": folder / "data", "API_PORT": self.port} | settings
        self._process: psutil.Popen | None = None
        self._session = requests.Session()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    # --- life ----------------------------------------------------------------------------------------

    def start(self, **settings: Any) -> None:
        """Start it and wait until it is ready and every pool has a worker."""
        chosen = {f"ESB_{k.upper()}": str(v) for k, v in (self._settings | settings).items()}
        environ = {k: v for k, v in os.environ.items() if not k.startswith(("ESB_", "DB_"))} | chosen
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / "up.log").open("ab") as log:
            command = [ESB, "up", "--no-flower", *self._arguments]
            self._process = psutil.Popen(command, env=environ, stdout=log, stderr=log, cwd=self.folder)
        wait_until(self.is_ready, 60, f"the bus's start (see {self.folder}/up.log)")

    def stop(self) -> None:
        """Ask it to stop, and wait until nothing is left of it."""
        if self._process is not None and self._process.is_running():
            family = [self._process, *self._process.children(recursive=True)]
            self._process.send_signal(signal.SIGTERM)
            _, left = psutil.wait_procs(family, timeout=45)
            for process in left:
                process.kill()
            assert not left, f"left over after a stop: {left}"

    def is_ready(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, f"the bus ended: {(self.folder / 'up.log').read_text()[-2000:]}"
        try:
            body = self.get("/health/ready").body
        except requests.RequestException:
            return False
        return isinstance(body, dict) and all(
            (body.get("workers") or {}).get(p) for p in ("routing", "delivery", "orchestration", "health", "ingress")
        )

    def processes(self, role: str) -> list[psutil.Process]:
        """Live processes whose command line shows this role, such as `worker delivery`."""
        assert self._process is not None
        found = []
        for process in self._process.children(recursive=True):
            try:
                if role in " ".join(process.cmdline()) and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
            except psutil.NoSuchProcess:
                continue
        return found

    def kill(self, role: str) -> int:
        """`kill -9` of every process of a role; how many there were."""
        found = self.processes(role)
        for process in found:
            process.kill()
        return len(found)

    # --- REST ----------------------------------------------------------------------------------------

    def call(self, method: str, path: str, body: Any = None, key: str | None = None, **headers: str) -> Answer:
        sent = {"X-API-Key": key or self.admin_key} | {name.replace("_", "-"): value for name, value in headers.items()}
        data = None
        if body is not None:
            data, sent = json.dumps(body), {"Content-Type": "application/json"} | sent
        answer = self._session.request(
            method, f"http://127.0.0.1:{self.port}{path}", data=data, headers=sent, timeout=60
        )
        is_json = "json" in answer.headers.get("Content-Type", "")
        return Answer(answer.status_code, answer.json() if is_json and answer.content else answer.text, answer.headers)

    def get(self, path: str, **kw: Any) -> Answer:
        return self.call("GET", path, **kw)

    def post(self, path: str, body: Any = None, **kw: Any) -> Answer:
        return self.call("POST", path, body, **kw)

    def create(self, path: str, body: Any, **kw: Any) -> Any:
        """POST that must answer 201; the resource."""
        answer = self.post(path, body, **kw)
        assert answer.status == 201, (path, answer)
        return answer.body

    def message(self, message_id: str) -> Any:
        return self.get(f"/routing/messages/{quote(message_id, safe='')}").body

    def execution(self, execution_id: str) -> Any:
        return self.get(f"/orchestration/executions/{execution_id}").body
