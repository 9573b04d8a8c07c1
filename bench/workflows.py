"""`python -m bench workflows`: runs of workflows, beside DBOS on the same PostgreSQL and a Celery chain on the same Redis.

Each in its turn, while the others rest: what one run costs when nothing else goes on, what a step adds to it, and how
many runs go through when 16 callers start them as fast as they can.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import psycopg2

from bench import machines
from bench.load import Target, send
from bench.machines import call, process, until

CALLERS = 16
_PLUGIN = str(Path(__file__).parent / "plugin")


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m bench workflows", description=__doc__)
    parser.add_argument("--runs", type=int, default=600, help="runs in a burst (default %(default)s)")
    print(json.dumps(measure(parser.parse_args(arguments).runs), indent=1))


def measure(runs: int) -> dict[str, Any]:
    """All three in one run; their figures by name."""
    with (
        tempfile.TemporaryDirectory(prefix="esb-bench-") as name,
        machines.sink(Path(name)) as sink_port,
        machines.bus(Path(name), sink_port, routes=1, plugins=_PLUGIN) as machine,
    ):
        addresses = json.loads((Path(name) / "bus" / "addresses.json").read_text())
        bus = Bus(machine, addresses["database"], sink_port)
        return {
            "the bus": bus.measure(runs),
            "DBOS": dbos(addresses["database"], f"http://127.0.0.1:{sink_port}/", runs),
            "Celery chain": chain(Path(name), addresses["broker"], runs),
        }


class Bus:
    """Drives runs over REST, and reads from the database when they began and ended."""

    def __init__(self, machine: machines.Machine, database: str, sink_port: int) -> None:
        self._port = machine.target.port
        self._keys = {"X-API-Key": machine.admin_key}
        self._connection = psycopg2.connect(database)
        self._connection.autocommit = True
        noop: dict[str, Any] = {"type": "bench_noop", "config": {}}
        self._define("noop1", [noop])
        self._define("noop10", [noop] * 10)
        self._define("relaxed1", [noop], durability="relaxed")
        self._define("relaxed10", [noop] * 10, durability="relaxed")
        self._define("folded10", [{"type": "set", "config": {"variables": {"x": "${1 + 1}"}}}] * 10)
        call_ = {"type": "service_call", "config": {"serviceName": "sink", "method": "step", "payload": {"n": 1}}}
        self._define("calls5", [call_] * 5)
        self._define("relaxed5", [call_] * 5, durability="relaxed")

    def measure(self, runs: int) -> dict[str, Any]:
        self._burst("noop10", 100)  # warm
        one, ten, folded = (self._alone(name, 100) for name in ("noop1", "noop10", "folded10"))
        eased, all_eased = (self._alone(name, 100) for name in ("relaxed1", "relaxed10"))
        return {
            "run_of_1_step_p50_ms": one["run"],
            "run_of_10_steps_p50_ms": ten["run"],
            "run_of_10_folded_steps_p50_ms": folded["run"],
            "marginal_step_p50_ms": round((ten["run"] - one["run"]) / 9, 3),
            "marginal_relaxed_step_p50_ms": round((all_eased["run"] - eased["run"]) / 9, 3),
            "ten_steps_over_rest_p50_ms": ten["rest"],
            "ten_relaxed_steps_over_rest_p50_ms": all_eased["rest"],
            "ten_folded_steps_over_rest_p50_ms": folded["rest"],
            "ten_steps": self._burst("noop10", runs),
            "ten_relaxed_steps": self._burst("relaxed10", runs),
            "ten_folded_steps": self._burst("folded10", runs),
            "five_calls": self._burst("calls5", runs, steps=5),
            "five_relaxed_calls": self._burst("relaxed5", runs, steps=5),
        }

    def _define(self, name: str, steps: list[dict[str, Any]], **more: Any) -> None:
        listed = [{"id": f"s{n}", **step} for n, step in enumerate(steps)]
        body = {"name": name, "version": "1.0.0", "definition": {"flow": "sequential", "steps": listed, **more}}
        status, answer = call(self._port, "POST", "/orchestration/workflows", body, self._keys)
        assert status == 201, answer

    def _alone(self, name: str, times: int) -> dict[str, float]:
        """One after the other: a run's own time by the database's clock, and its caller's wait; medians in ms."""
        waits, ids = [], []
        for _ in range(times):
            began = time.perf_counter()
            body = {"workflowName": name, "initialContext": {}}
            status, answer = call(
                self._port, "POST", "/orchestration/execute", body, self._keys | {"Prefer": "wait=30"}
            )
            waits.append((time.perf_counter() - began) * 1000)
            assert status == 200, answer
            ids.append(answer["id"])
        own = self._sql(
            "select percentile_cont(0.5) within group (order by 1000 * extract(epoch from finished_at - started_at))"
            " from execution where id = any(%s::uuid[])",
            ids,
        )
        return {"run": round(float(own), 3), "rest": round(sorted(waits)[times // 2], 3)}

    def _burst(self, name: str, runs: int, steps: int = 10) -> dict[str, Any]:
        since = self._sql("select clock_timestamp()")
        target = Target(self._port, "/orchestration/execute", self._keys, lambda n: {"workflowName": name})
        began = time.monotonic()
        sent = send(target, range(runs), CALLERS)
        accepted = time.monotonic()
        assert not sent.refused, sent.refused
        ended = "select count(*) from execution where created_at >= %s and finished_at is not null"
        until(lambda: self._sql(ended, since) >= runs, 300, "the end of the runs")
        last = self._sql(
            "select extract(epoch from max(finished_at) - %s) from execution where created_at >= %s", since, since
        )
        return {
            "starts_per_s": round(runs / (accepted - began)),
            "runs_per_s": round(runs / float(last)),
            "steps_per_s": round(runs * steps / float(last)),
        }

    def _sql(self, statement: str, *values: Any) -> Any:
        with self._connection.cursor() as cursor:
            cursor.execute(statement, values)
            return cursor.fetchone()[0]  # type: ignore[index]


def dbos(database: str, sink: str, runs: int) -> dict[str, Any]:
    """DBOS, in a database of its own on the bus's server."""
    connection = psycopg2.connect(database)
    connection.autocommit = True
    with connection.cursor() as cursor:
        cursor.execute("create database dbos_bench")
    connection.close()
    url = urlunsplit(urlsplit(database)._replace(path="/dbos_bench"))
    return _figures("bench.peers.dbos_flow", url, sink, str(runs), str(CALLERS))


def chain(folder: Path, broker: str, runs: int) -> dict[str, Any]:
    """A Celery chain, in a logical database of its own on the bus's Redis server."""
    env = {"BENCH_BROKER": _numbered(broker, 5), "BENCH_BACKEND": _numbered(broker, 6)}
    worker = [sys.executable, "-m", "celery", "-A", "bench.peers.chain:tasks", "worker", "-c", "2", "-l", "WARNING"]
    with _environment(env), process(*worker, log=folder / "chain.log"):
        return _figures("bench.peers.chain", str(runs), str(CALLERS))


def _numbered(broker: str, number: int) -> str:
    """The broker's URL for another of its logical databases."""
    return f"{broker}?virtual_host={number}" if broker.startswith("redis+socket") else f"{broker.rstrip('/')}/{number}"


@contextmanager
def _environment(values: dict[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})


def _figures(module: str, *arguments: str) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-m", module, *arguments], check=False, capture_output=True, text=True, timeout=300
    )
    if done.returncode:
        raise RuntimeError(f"{module} failed: {done.stderr[-2000:]}")
    figures: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return figures
