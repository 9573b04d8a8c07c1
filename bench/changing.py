"""`python -m bench changing`: what changes of routes under load cost the messages that are accepted meanwhile.

200 messages/s by one route of 300: a few seconds while nothing is changed, then a few while that very route is given
another destination ten times a second, and so on in turn, so that whatever else the machine does falls on both alike.
Where each message arrives tells which change it was routed by: one that was posted after the answer of a change and went
where it had led before that is late. Times in milliseconds.
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
SECONDS: Final = 4  # each time
ROUNDS: Final = 10
#: Destinations of the route, one after the other. A message that is on its way for half a turn could not be told apart.
PLACES: Final = 40


class _Figures:
    """What was measured of all times of one kind."""

    def __init__(self) -> None:
        self.accept: list[float] = []
        self.arrival: list[float] = []
        self.cpu: dict[str, float] = {}
        self.refused = 0

    def add(self, sent: Sent, arrivals: dict[int, float], used: dict[str, float]) -> None:
        self.accept += [(sent.answered[n] - at) * 1000 for n, at in sent.posted.items()]
        self.arrival += [(at - sent.posted[n]) * 1000 for n, at in arrivals.items()]
        self.refused += len(sent.refused)
        for role, spent in used.items():
            self.cpu[role] = self.cpu.get(role, 0.0) + spent

    def shown(self) -> dict[str, Any]:
        # Other than times, CPU does not depend on what else the machine does.
        cpu = {role: round(1e6 * spent / len(self.accept)) for role, spent in self.cpu.items()}
        return {
            "accept": _spread(self.accept),
            "arrival": _spread(self.arrival),
            "refused": self.refused,
            "cpu_us_per_message": {role: us for role, us in sorted(cpu.items(), key=lambda item: -item[1]) if us > 5},
        }


def run() -> dict[str, Any]:
    unchanged, changed, late = _Figures(), _Figures(), 0
    with tempfile.TemporaryDirectory(prefix="esb-bench-") as folder, machines.sink(Path(folder)) as port:
        with machines.bus(Path(folder), port, ROUTES) as machine:
            route = _Route(machine, port)
            for figures in (_Figures(), _Figures()):  # warm: caches, connections, compiled code
                _load(machine, port, route, figures)
            for _ in range(ROUNDS):
                _load(machine, port, None, unchanged)
                late += _load(machine, port, route, changed)
    return {
        "routes": ROUTES,
        "messages_per_s": RATE,
        "changes_per_s": CHANGES,
        "unchanged": unchanged.shown(),
        "changed": changed.shown(),
        "change": _spread(route.took),
        "late": late,
    }


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


def _load(machine: Machine, sink_port: int, route: _Route | None, figures: _Figures) -> int:
    """Send for a while, and keep changing `route` if there is one; how many messages were late."""
    call(sink_port, "DELETE", "/")
    count, before = RATE * SECONDS, machine.cpu_seconds()
    changer = threading.Thread(target=lambda: route.keep_changing(SECONDS) if route else None)
    changer.start()
    sent = send(machine.target, range(count), CONNECTIONS, RATE)
    changer.join()
    count -= len(sent.refused)
    until(lambda: int(call(sink_port, "GET", "/count")[1]) >= count, 60, f"the arrival of {count} messages")
    used = {role: after - before.get(role, 0.0) for role, after in machine.cpu_seconds().items()}
    found = call(sink_port, "GET", "/figures")[1]
    figures.add(sent, {int(n): float(at) for n, at in found["arrivals"].items()}, used)
    if route is None:
        return 0
    return sum(route.is_late(sent.posted[int(n)], int(path.split("/")[1])) for n, path in found["paths"].items())


def _spread(times: Sequence[float]) -> dict[str, float]:
    ordered = sorted(times)
    return {
        "p50": round(ordered[len(ordered) // 2], 1),
        "p99": round(ordered[int(len(ordered) * 0.99)], 1),
        "max": round(ordered[-1], 1),
    }
