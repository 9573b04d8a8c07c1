"""`python -m bench`: the bus beside a bare Flask + Celery + requests fan-out, in one run; JSON and a plot.

For each: accepted per second and end to end per second until the last of MESSAGES single POSTs has arrived, over 16
kept-alive connections; then, at half that load and at 200 messages/s, latency from accept to arrival; and CPU seconds
per message. Others: `python -m bench batches`, `backlog`, `matching`, `changing`, `workflows`, `wide`.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import sys
import tempfile
import time
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import psutil

from bench import backlog, batches, changing, machines, matching, wide, workflows
from bench.load import Sent, send
from bench.machines import Machine, call, until
from bench.plot import plot

CONNECTIONS = 16
RESULTS = Path(__file__).parent / "results"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--messages", type=int, default=10_000, help="single POSTs in a burst (default %(default)s)")
    parser.add_argument("--rounds", type=int, default=1, help="interleaved rounds (default %(default)s)")
    parser.add_argument(
        "--latency-seconds", type=int, default=10, help="length of the latency run (default %(default)s)"
    )
    parser.add_argument("--only", choices=("bus", "bare"), help="one of the two")
    options = parser.parse_args()
    rounds = [one_round(options) for _ in range(options.rounds)]
    report = {"machine": about(), "messages": options.messages, "connections": CONNECTIONS, "rounds": rounds}
    if options.only is None:
        report["ratio"] = round(
            statistics.median(r["the bus"]["end_to_end_per_s"] / r["bare Celery"]["end_to_end_per_s"] for r in rounds),
            2,
        )
    RESULTS.mkdir(exist_ok=True)
    name = time.strftime("%Y%m%d-%H%M%S")
    (RESULTS / f"{name}.json").write_text(json.dumps(report, indent=1) + "\n")
    print(json.dumps(report, indent=1))
    if options.only is None:
        plot(report, RESULTS / f"{name}.png")


def about() -> dict[str, Any]:
    return {
        "cores": psutil.cpu_count(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30),
        "python": platform.python_version(),
    }


def one_round(options: argparse.Namespace) -> dict[str, Any]:
    results: dict[str, Any] = {}
    for name, bring_up in (("bare", machines.bare), ("bus", machines.bus)):
        if options.only in (None, name):
            with tempfile.TemporaryDirectory(prefix="esb-bench-") as folder, machines.sink(Path(folder)) as port:
                measure(bring_up(Path(folder), port), port, options, results)
    return results


def measure(
    machine_up: AbstractContextManager[Machine], sink_port: int, options: argparse.Namespace, results: dict[str, Any]
) -> None:
    with machine_up as machine:
        burst(machine, sink_port, 1000)  # warm: caches, connections, compiled code
        results[machine.name] = figures = burst(machine, sink_port, options.messages)
        rate = figures["end_to_end_per_s"] / 2
        figures["latency_at_half_load"] = latency(machine, sink_port, rate, int(rate * options.latency_seconds))
        figures["latency_at_200_per_s"] = latency(machine, sink_port, 200, 200 * options.latency_seconds)
        print(machine.name, json.dumps(figures), flush=True)


def burst(machine: Machine, sink_port: int, count: int) -> dict[str, Any]:
    call(sink_port, "DELETE", "/")
    before, began = machine.cpu_seconds(), time.monotonic()
    sent = send(machine.target, range(count), CONNECTIONS)
    accepted = time.monotonic()
    arrived = arrivals(sink_port, count)
    after = machine.cpu_seconds()
    used = {role: round(1e6 * (after[role] - before.get(role, 0.0)) / count) for role in after}
    last = max(arrived.values())
    return {
        "refused": len(sent.refused),
        "accepted_per_s": round(count / (accepted - began)),
        "end_to_end_per_s": round(count / (last - began)),
        "cpu_us_per_message": sum(used.values()),
        "cpu_us_by_process": dict(sorted(used.items(), key=lambda item: -item[1])),
    }


def latency(machine: Machine, sink_port: int, rate: float, count: int) -> dict[str, Any]:
    call(sink_port, "DELETE", "/")
    sent = send(machine.target, range(count), CONNECTIONS, rate)
    arrived = arrivals(sink_port, count)
    return {"rate_per_s": round(rate), **percentiles(sent, arrived)}


def arrivals(sink_port: int, count: int) -> dict[int, float]:
    until(lambda: int(call(sink_port, "GET", "/count")[1]) >= count, 300, f"the arrival of {count} messages")
    return {int(n): at for n, at in call(sink_port, "GET", "/figures")[1]["arrivals"].items()}


def percentiles(sent: Sent, arrived: dict[int, float]) -> dict[str, float]:
    """From the 202 to the arrival; an arrival before the 202 was read counts as zero."""
    waits = sorted(max(0.0, arrived[n] - at) * 1000 for n, at in sent.answered.items() if n in arrived)
    whole = sorted((arrived[n] - at) * 1000 for n, at in sent.posted.items() if n in arrived)
    return {
        "accept_to_arrival_p50_ms": round(waits[len(waits) // 2], 2),
        "accept_to_arrival_p99_ms": round(waits[int(len(waits) * 0.99)], 2),
        "post_to_arrival_p50_ms": round(whole[len(whole) // 2], 2),
        "post_to_arrival_p99_ms": round(whole[int(len(whole) * 0.99)], 2),
    }


if __name__ == "__main__":
    if sys.argv[1:2] == ["matching"]:
        matching.main(sys.argv[2:])
    elif sys.argv[1:2] == ["batches"]:
        print(json.dumps(batches.run(), indent=1))
    elif sys.argv[1:2] == ["backlog"]:
        print(json.dumps(backlog.run(), indent=1))
    elif sys.argv[1:2] == ["changing"]:
        print(json.dumps(changing.run(), indent=1))
    elif sys.argv[1:2] == ["workflows"]:
        workflows.main(sys.argv[2:])
    elif sys.argv[1:2] == ["wide"]:
        print(json.dumps(wide.run(), indent=1))
    else:
        main()
