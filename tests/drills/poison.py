"""The drill on poison: bodies that no parser should be given, and a message that kills whoever routes it."""

from __future__ import annotations

import http.client
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.drills.catalogue import drill
from tests.drills.checker import Expected
from tests.drills.scene import PATIENT, Scene
from tests.drills.workload import Plan

#: Bodies that are refused at the door.
REFUSED: Mapping[str, bytes] = {
    "NaN": b'{"n": NaN}',
    "infinity": b'{"n": 1e999}',
    "a zero character": rb'{"n": "\u0000"}',
    "a lone surrogate": rb'{"n": "\ud800"}',
    "depth": b'{"n": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "a long integer": b'{"n": ' + b"9" * 5000 + b"}",
    "a repeated key": b'{"n": 1, "n": 2}',
    "not JSON": b'{"n": ',
    "not UTF-8": b'{"n": "\xff"}',
}


@drill(
    14,
    "poison",
    "what cannot be handled is refused at the door; what kills its worker five times ends as failed, and takes nobody with it",
)
def poison(scene: Scene) -> None:
    plugin = str(Path(__file__).parent / "plugin")
    os.environ["PYTHONPATH"] = plugin
    scene.stack.callback(os.environ.pop, "PYTHONPATH", None)
    bus = scene.start_bus("--workers", "routing=2", lease_seconds=2, sweep_seconds=0.5)
    route = {
        "name": "harm",
        "pattern": "drill.harm",
        "destinations": ["a"],
        "retryPolicy": PATIENT,
        "transformation": {"type": "drill_harm"},
    }
    bus.create("/routing/routes", route)
    scene.warm_up()
    _refused_at_the_door(scene)
    endings: dict[int, str] = {}

    def harm(n: int) -> dict[str, Any]:
        if n % 40 not in (7, 27):
            return {}
        word, ending = (
            ("exit", "failed")
            if n % 40 == 7 and len([e for e in endings.values() if e == "failed"]) < 1
            else ("raise", "dead")
        )
        endings[n] = ending
        return {"messageType": "drill.harm", "payload": {"n": n, "harm": word}}

    with scene.load(Plan(per_second=40, extra=harm, insist=False)):
        routing = bus.processes("esb worker routing")
        for process in routing:
            process.suspend()
        time.sleep(1.6)  # so that the poison shares its first batch with dozens of others
        for process in routing:
            process.resume()
        time.sleep(3.5)
        scene.expected = Expected(endings=endings)
    scene.healed()
    # Five lives of a worker, each lost by its lease, each restarted a little later than the one before.
    scene.settle(within=75, patience=120)
    reasons = scene.sql("select reason from message_end where status = 'failed'")
    scene.require([r for (r,) in reasons] == ["worker_lost"], "drill", f"the poison ended as {reasons}")


def _refused_at_the_door(scene: Scene) -> None:
    for name, payload in REFUSED.items():
        body = b'{"source": "drill", "messageType": "drill.a", "payload": ' + payload + b"}"
        status = _post(scene, body)
        scene.require(400 <= status < 500, "I7 API", f"{name} was answered {status}")


def _post(scene: Scene, body: bytes) -> int:
    connection = http.client.HTTPConnection("127.0.0.1", scene.bus.port, timeout=30)
    headers = {"X-API-Key": scene.bus.admin_key, "Content-Type": "application/json"}
    try:
        connection.request("POST", "/routing/send", body, headers)
        return connection.getresponse().status
    finally:
        connection.close()
