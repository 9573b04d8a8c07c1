"""`python -m bench changing`: what changes of routes under load cost the messages that are accepted meanwhile.

200 messages/s by one route of 300, first while nothing is changed, then while that very route is given another
destination ten times a second; both several times in turn. Where each message arrives tells which change it was routed
by: one that was posted after the answer of a change and went where it had led before that is late. Times in milliseconds.
"""

from __future__ import annotations

import tempfile
import threading
import time
from bisect import bisect
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from bench import machines
from bench.load import Sent, send
from bench.machines import Machine, call, until

ROUTES: Final = 300
RATE: Final = 200  # messages a second
CHANGES: Final = 10  # a second
CONNECTIONS: Final = 16
SECONDS: Final = 10
ROUNDS: Final = 3
#: Destinations of the route, one after the other. A message that is on its way for half a turn could not be told apart.
PLACES: Final = 40


def run() -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="esb-bench-") as folder, machines.sink(Path(folder)) as port:
        with machines.bus(Path(folder), port, ROUTES) as machine:
            route = _Route(machine, port)
            _load(machine, port, 2)  # warm: caches, connections, compiled code
            _changed(machine, port, route, 2)
            quiet, changed = [], []
            for _ in range(ROUNDS):
                quiet.append(_unchanged(machine, port, SECONDS))
                changed.append(_changed(machine, port, route, SECONDS))
    return {"routes": ROUTES, "messages_per_s": RATE, "unchanged": quiet, "changes_per_s": CHANGES, "changed": changed}


class _Route:
    """The route that takes the load, and each change of it: when it was asked for, and when it was answered."""

    def __init__(self, machine: Machine, sink_port: int) -> None:
        self._port, self._key = machine.target.port, {"X-API-Key": machine.admin_key}
        for place in range(PLACES):
            endpoint = f"http://127.0.0.1:{sink_port}/{place}"
            service = {"name": f"sink-{place}", "version": "1.0.0", "endpoint": endpoint}
            assert call(self._port, "POST", "/services", service, self._key)[0] == 201
        found = call(self._port, "GET", "/routing/routes?name=orders", None, self._key)[1]["items"]
        self._path = f"/routing/routes/{found[0]['id']}"
        self.answered: list[float] = []
        self.took: list[float] = []
        self.change()

    def change(self) -> None:
        began = time.monotonic()
        body = {"destinations": [f"sink-{len(self.answered) % PLACES}"]}
        status, answer = call(self._port, "PATCH", self._path, body, self._key)
        assert status == 200, (status, answer)
        self.answered.append(time.monotonic())
        self.took.append((self.answered[-1] - began) * 1000)

    def keep_changing(self, seconds: float) -> None:
        began = time.monotonic()
        for number in range(int(seconds * CHANGES)):
            time.sleep(max(0.0, began + number / CHANGES - time.monotonic()))
            self.change()

    def is_late(self, posted: float, place: int) -> bool:
        """Whether a message went to a place that a change which was answered before its POST had led away from."""
        in_force = bisect(self.answered, posted) - 1
        return (place - in_force) % PLACES >= PLACES / 2


def _unchanged(machine: Machine, sink_port: int, seconds: int) -> dict[str, Any]:
    before = machine.cpu_seconds()
    sent, _ = _load(machine, sink_port, seconds)
    return _accepted(sent) | _used(machine, before)


def _used(machine: Machine, before: dict[str, float]) -> dict[str, Any]:
    """CPU milliseconds so far, by process: other than times, it does not depend on what else the machine does."""
    used = {role: round(1000 * (after - before.get(role, 0.0))) for role, after in machine.cpu_seconds().items()}
    return {"cpu_ms": {role: spent for role, spent in sorted(used.items(), key=lambda item: -item[1]) if spent}}


def _load(machine: Machine, sink_port: int, seconds: int) -> tuple[Sent, dict[str, Any]]:
    call(sink_port, "DELETE", "/")
    count = RATE * seconds
    sent = send(machine.target, range(count), CONNECTIONS, RATE)
    count -= len(sent.refused)
    until(lambda: int(call(sink_port, "GET", "/count")[1]) >= count, 60, f"the arrival of {count} messages")
    return sent, call(sink_port, "GET", "/figures")[1]


def _changed(machine: Machine, sink_port: int, route: _Route, seconds: int) -> dict[str, Any]:
    before, cpu = len(route.took), machine.cpu_seconds()
    changer = threading.Thread(target=route.keep_changing, args=(seconds,))
    changer.start()
    sent, figures = _load(machine, sink_port, seconds)
    changer.join()
    arrivals = {int(n): float(at) for n, at in figures["arrivals"].items()}
    late = sum(route.is_late(sent.posted[int(n)], int(path.split("/")[1])) for n, path in figures["paths"].items())
    return {
        **_accepted(sent),
        **_used(machine, cpu),
        "arrival": _spread([(arrivals[n] - sent.posted[n]) * 1000 for n in arrivals]),
        "change": _spread(route.took[before:]),
        "late": late,
    }


def _accepted(sent: Sent) -> dict[str, Any]:
    accepts = _spread([(sent.answered[n] - at) * 1000 for n, at in sent.posted.items()])
    return {"accept": accepts, "refused": len(sent.refused)}


def _spread(times: Sequence[float]) -> dict[str, float]:
    ordered = sorted(times)
    return {
        "p50": round(ordered[len(ordered) // 2], 1),
        "p99": round(ordered[int(len(ordered) * 0.99)], 1),
        "max": round(ordered[-1], 1),
    }
