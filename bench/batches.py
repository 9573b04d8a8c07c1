"""`python -m bench batches`: messages accepted and delivered in batches, and what one dead destination costs the rest."""

from __future__ import annotations

import socket
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench import machines
from bench.load import Target, send
from bench.machines import Machine, call, message, payload, until

BATCH = 1000
CONNECTIONS = 4
DESTINATIONS = 100


def run(messages: int = 30_000) -> dict[str, Any]:
    """The figures of both."""
    with tempfile.TemporaryDirectory(prefix="esb-bench-") as folder, machines.sink(Path(folder)) as port:
        with machines.bus(Path(folder), port) as machine:
            _burst(machine, port, 5_000, message)
            batches = _burst(machine, port, messages, message)
            with socket.create_server(("127.0.0.1", 0), backlog=512) as silent:  # takes connections, answers none
                return {"batches": batches, "one_dead_of_100": _one_dead(machine, port, silent.getsockname()[1])}


def _burst(machine: Machine, sink_port: int, count: int, word: Any, expected: int | None = None) -> dict[str, Any]:
    call(sink_port, "DELETE", "/")
    bodies = [{"messages": [word(n) for n in range(at, at + BATCH)]} for at in range(0, count, BATCH)]
    target = Target(machine.target.port, "/routing/send/batch", machine.target.headers, lambda n: bodies[n])
    wanted, before, began = expected or count, sum(machine.cpu_seconds().values()), time.monotonic()
    sent = send(target, range(len(bodies)), CONNECTIONS)
    accepted = time.monotonic()
    until(lambda: int(call(sink_port, "GET", "/count")[1]) >= wanted, 120, f"the arrival of {wanted} messages")
    used = sum(machine.cpu_seconds().values()) - before
    last = max(call(sink_port, "GET", "/figures")[1]["arrivals"].values())
    return {
        "refused": len(sent.refused),
        "accepted_per_s": round(count / (accepted - began)),
        "end_to_end_per_s": round(wanted / (last - began)),
        "cpu_us_per_message": round(1e6 * used / count),
    }


def _one_dead(machine: Machine, sink_port: int, dead_port: int) -> dict[str, Any]:
    """A hundred destinations with equal shares: first all are well, then one takes calls and answers none.

    Those that are well are known to the bus in both cases: what is measured is the dead one, not the first calls.
    """
    key = machine.admin_key

    def add(path: str, body: dict[str, Any]) -> None:
        status, answer = call(machine.target.port, "POST", path, body, {"X-API-Key": key})
        assert status == 201, (path, status, answer)

    for number in range(DESTINATIONS):
        for kind, port in (("well", sink_port), ("ill", dead_port if number == 0 else sink_port)):
            name = f"{kind}-{number}"
            add("/services", {"name": name, "version": "1.0.0", "endpoint": f"http://127.0.0.1:{port}"})
            add("/routing/routes", {"name": name, "pattern": f"{kind}.{number}", "destinations": [name]})

    def word(kind: str, to: Callable[[int], int] = lambda n: n % DESTINATIONS) -> Any:
        return lambda n: {"source": "bench", "messageType": f"{kind}.{to(n)}", "payload": payload(n)}

    def rest(n: int) -> int:
        return 1 + n % (DESTINATIONS - 1)

    count = 10_000
    _burst(machine, sink_port, 2_000, word("well", rest))
    well = _burst(machine, sink_port, count, word("well"))
    _burst(machine, sink_port, 2_000, word("ill", rest))
    ill = _burst(machine, sink_port, count, word("ill"), count - count // DESTINATIONS)
    return {
        "all_well_per_s": well["end_to_end_per_s"],
        "the_rest_per_s": ill["end_to_end_per_s"],
        "left": round(ill["end_to_end_per_s"] / well["end_to_end_per_s"], 2),
    }
