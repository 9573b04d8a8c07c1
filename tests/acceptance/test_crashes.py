"""Nothing lost: whatever is killed, what was accepted arrives, each once in effect."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from esb_workers import drill
from tests.support.bus import RunningBus, wait_until
from tests.support.receiver import Receiver, Reply

POOLS = ("routing", "delivery", "orchestration", "health", "ingress")


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as running:
        yield running


def register(bus: RunningBus, receiver: Receiver, **delivery: Any) -> None:
    bus.create("/services", {"name": "orders", "version": "1.0.0", "endpoint": receiver.url, "delivery": delivery})
    policy = {"maxRetries": 10, "backoffStrategy": "fixed", "initialDelay": 300}
    bus.create(
        "/routing/routes", {"name": "orders", "pattern": "order.#", "destinations": ["orders"], "retryPolicy": policy}
    )


def send(bus: RunningBus, number: int) -> str:
    answer = bus.post("/routing/send", {"source": "shop", "messageType": "order.made", "payload": {"n": number}})
    assert answer.status == 202, answer
    return str(answer.body["messageId"])


def flush(bus: RunningBus) -> None:
    path = next((bus.folder / "data").rglob("*.sock"), None)
    assert path is not None, "the embedded Valkey's socket"
    redis.Redis(unix_socket_path=str(path)).flushall()


def numbers(receiver: Receiver) -> set[int]:
    return {hit.json["n"] for hit in receiver.hits}


def test_messages_sent_while_every_worker_is_killed_and_redis_is_flushed_all_arrive(
    tmp_path: Path, receiver: Receiver
) -> None:
    with RunningBus(tmp_path) as bus:
        register(bus, receiver)
        sent: list[str] = []
        sender = threading.Thread(target=lambda: sent.extend(send(bus, n) for n in range(300)))
        sender.start()
        wait_until(lambda: len(sent) > 100 or len(receiver.hits) > 50)
        assert all(bus.kill(f"worker {pool}") for pool in POOLS)
        flush(bus)
        sender.join()
        wait_until(lambda: numbers(receiver) == set(range(300)), 30, "the arrival of all")
        wait_until(lambda: all(bus.message(m)["status"] == "delivered" for m in sent), 30, "their records")
        assert len(receiver.effects()) == 300, "each once in effect: what was sent again bears the same key"


def test_executions_killed_mid_run_complete(tmp_path: Path, receiver: Receiver) -> None:
    receiver.answer = lambda hit: Reply(delay=0.4)
    steps = [
        {
            "id": f"s{n}",
            "type": "service_call",
            "config": {"serviceName": "orders", "method": f"m{n}"},
            "onSuccess": f"s{n + 1}",
        }
        for n in range(4)
    ]
    steps[-1].pop("onSuccess")
    with RunningBus(tmp_path, lease_seconds=5) as bus:
        register(bus, receiver)
        bus.create("/orchestration/workflows", {"name": "slow", "version": "1.0.0", "definition": {"steps": steps}})
        runs = [bus.post("/orchestration/execute", {"workflowName": "slow"}).body["executionId"] for _ in range(5)]
        wait_until(lambda: len(receiver.hits) >= 7, 30, "the middle of the runs")
        assert bus.kill("worker orchestration")
        wait_until(lambda: all(bus.execution(r)["status"] == "completed" for r in runs), 40, "all runs")
        assert set(receiver.effects()) == {f"{r}:s{n}" for r in runs for n in range(4)}


@pytest.mark.parametrize("label", drill.LABELS)
def test_a_process_that_dies_at_a_crash_point_loses_nothing(tmp_path: Path, receiver: Receiver, label: str) -> None:
    """The armed processes kill themselves at the label, are started again armed, and die again, until disarmed."""
    with RunningBus(tmp_path, lease_seconds=2, sweep_seconds=0.5) as bus:
        register(bus, receiver)
        bus.stop()
        bus.start(crash_at=label)
        accepted, unknown = crash_some(bus)
        bus.stop()
        bus.start()
        for number in range(10, 15):
            accepted.add(number)
            send(bus, number)
        wait_until(lambda: accepted <= numbers(receiver), 40, f"the arrival of what was accepted around {label}")
        assert numbers(receiver) <= accepted | unknown
        assert max_effects(receiver) == 1


def crash_some(bus: RunningBus) -> tuple[set[int], set[int]]:
    """Send some while processes die; the numbers that were accepted, and those of which nobody knows."""
    accepted, unknown = set(), set()
    for number in range(5):
        try:
            (accepted if bus.post("/routing/send", body(number)).status == 202 else unknown).add(number)
        except OSError:
            unknown.add(number)
    return accepted, unknown


def body(number: int) -> dict[str, Any]:
    return {"source": "shop", "messageType": "order.made", "payload": {"n": number}}


def max_effects(receiver: Receiver) -> int:
    """How many different keys the same number arrived under, at most: more than one is a doubled effect."""
    keys: dict[int, set[str]] = {}
    for hit in receiver.hits:
        keys.setdefault(hit.json["n"], set()).add(hit.key or "")
    return max(len(k) for k in keys.values())
