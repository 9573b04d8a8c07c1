"""Brings up the bus, the bare peer and the sink as real processes, and counts the CPU they use."""

from __future__ import annotations

import http.client
import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from bench.load import Target
from esb_workers.node.valkey import EmbeddedValkey

BIN = Path(sys.executable).parent


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def until(condition: Callable[[], Any], seconds: float, what: str) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what}: not within {seconds} s")
        time.sleep(0.02)


def call(port: int, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None) -> tuple[int, Any]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        text = None if body is None else json.dumps(body)
        connection.request(method, path, text, {"Content-Type": "application/json"} | (headers or {}))
        answer = connection.getresponse()
        data = answer.read()
        return answer.status, json.loads(data) if data[:1] in (b"{", b"[") else data
    finally:
        connection.close()


@dataclass
class Machine:
    """A system under test: where to send, and its processes."""

    name: str
    target: Target
    roots: list[psutil.Process] = field(default_factory=list)
    admin_key: str = ""

    def cpu_seconds(self) -> dict[str, float]:
        """CPU used so far by each live process, user and system, by its role."""
        used: dict[str, float] = {}
        for root in self.roots:
            for process in [root, *root.children(recursive=True)]:
                try:
                    times, role = process.cpu_times(), _role(process)
                except psutil.NoSuchProcess:
                    continue
                used[role] = used.get(role, 0.0) + times.user + times.system
        return used


def _role(process: psutil.Process) -> str:
    line = " ".join(process.cmdline())
    roles = {
        "worker routing": "routing", "worker delivery": "delivery", "worker orchestration": "orchestration",
        "worker health": "health", "esb api": "api", "scheduler": "scheduler", "flower": "flower", "esb up": "supervisor",
        "gunicorn": "api", "celery": "worker", "valkey": "valkey",
    }  # fmt: skip
    return next((role for mark, role in roles.items() if mark in line), "postgres" if "postgres" in line else "other")


@contextmanager
def process(*command: str, log: Path, **env: str) -> Iterator[psutil.Process]:
    with log.open("ab") as out:
        child = subprocess.Popen(command, stdout=out, stderr=out, env=os.environ | env, start_new_session=True)
    try:
        yield psutil.Process(child.pid)
    finally:
        child.send_signal(signal.SIGTERM)
        try:
            child.wait(40)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()


@contextmanager
def sink(folder: Path) -> Iterator[int]:
    """The receiver; its port."""
    port_file = folder / "sink.port"
    with process(sys.executable, "-m", "bench.sink", str(port_file), log=folder / "sink.log"):
        until(lambda: port_file.exists() and port_file.read_text(), 10, "the sink")
        yield int(port_file.read_text())


@contextmanager
def bare(folder: Path, sink_port: int) -> Iterator[Machine]:
    """Flask + Celery + requests on a Redis of their own."""
    with ExitStack() as stack:
        broker = stack.enter_context(EmbeddedValkey(folder / "bare"))
        env = {"BENCH_BROKER": broker.url, "BENCH_SINK": f"http://127.0.0.1:{sink_port}/"}
        port = free_port()
        web = [
            "gunicorn",
            "-k",
            "gthread",
            "-w",
            "2",
            "--threads",
            "16",
            "-b",
            f"127.0.0.1:{port}",
            "bench.peers.bare:web",
        ]
        worker = ["celery", "-A", "bench.peers.bare:tasks", "worker", "-P", "threads", "-c", "32", "-l", "WARNING"]
        roots = [
            stack.enter_context(process(sys.executable, "-m", *cmd, log=folder / "bare.log", **env))
            for cmd in (web, worker)
        ]
        target = Target(port, "/send", {}, lambda n: {"payload": payload(n)})
        until(lambda: answers(port, target), 30, "the bare peer")
        yield Machine("bare Celery", target, roots)


@contextmanager
def bus(folder: Path, sink_port: int, routes: int = 100, plugins: str | None = None) -> Iterator[Machine]:
    """The whole bus by `esb up`: authentication, limits, `routes` routes, signing and full logging on."""
    port, key = free_port(), secrets.token_urlsafe(24)
    env = {
        "ESB_ADMIN_KEY": key,
        "ESB_DATA_DIR": str(folder / "bus"),
        "ESB_API_PORT": str(port),
        "ESB_FLOWER_PORT": str(free_port()),
    }
    if plugins is not None:
        env["PYTHONPATH"] = os.pathsep.join(filter(None, (plugins, os.environ.get("PYTHONPATH"))))
    with process(str(BIN / "esb"), "up", log=folder / "bus.log", **env) as root:
        until(lambda: answers(port, None), 60, "the bus")
        client_key = _register(port, key, sink_port, routes)
        target = Target(port, "/routing/send", {"X-API-Key": client_key}, message)
        until(lambda: call(port, "GET", "/health/ready")[1].get("workers", {}).get("delivery"), 30, "the workers")
        yield Machine("the bus", target, [root], key)


def _register(port: int, key: str, sink_port: int, routes: int) -> str:
    def post(path: str, body: dict[str, Any]) -> Any:
        status, answer = call(port, "POST", path, body, {"X-API-Key": key})
        assert status == 201, (path, status, answer)
        return answer

    post("/services", {"name": "sink", "version": "1.0.0", "endpoint": f"http://127.0.0.1:{sink_port}"})
    for n in range(routes - 1):
        post(
            "/routing/routes",
            {
                "name": f"other-{n}",
                "pattern": f"other.{n}.*",
                "destinations": ["sink"],
                "conditions": {"header.kind": f"k{n}"},
            },
        )
    route = {
        "name": "orders",
        "pattern": "order.*",
        "destinations": ["sink"],
        "conditions": {"header.kind": "bench"},
        "filter": "payload.n >= 0",
    }
    post("/routing/routes", route)
    limits = {"requestsPerMinute": 10_000_000, "requestsPerHour": 100_000_000}
    return str(post("/clients", {"name": "bench", "allowedServices": ["*"], "rateLimits": limits})["apiKey"])


def payload(number: int) -> dict[str, object]:
    return {
        "n": number,
        "customer": "c-1042",
        "items": [{"sku": "A-1", "count": 2}, {"sku": "B-7", "count": 1}],
        "total": 42.5,
    }


def message(number: int) -> dict[str, object]:
    return {"source": "bench", "messageType": "order.created", "payload": payload(number), "headers": {"kind": "bench"}}


def answers(port: int, target: Target | None) -> bool:
    """Whether a server accepts on this port (and takes a message, with a target)."""
    try:
        if target is None:
            return call(port, "GET", "/health/ready")[0] == 200
        return call(port, "POST", target.path, target.body(-1))[0] == 202
    except OSError:
        return False
