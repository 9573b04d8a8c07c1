"""`python -m bench wide`: workflows that are wide, or long, or asleep.

A `foreach` over 10,000 items, a loop of 10,000 rounds, 50 branches that call a service, and 1,000 runs that wait for a
week: how fast each goes, whether its last thousand takes longer than its first, and what it does to the memory of the
workers and to the list of executions.
"""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import psycopg2

from bench import machines
from bench.load import Target, send
from bench.machines import call, until

ITEMS = ROUNDS = 10_000
RUNNERS, BRANCHES, ASLEEP = 20, 50, 1000
#: A single part may take so long, seconds.
LIMIT = 120
_WEEK_MS = 7 * 24 * 3600 * 1000
_PLUGIN = str(Path(__file__).parent / "plugin")


def run() -> dict[str, Any]:
    """All four on one bus, one after the other."""
    with (
        tempfile.TemporaryDirectory(prefix="esb-bench-") as name,
        machines.sink(Path(name)) as sink_port,
        machines.bus(Path(name), sink_port, routes=1, plugins=_PLUGIN) as machine,
    ):
        return Wide(machine, json.loads((Path(name) / "bus" / "addresses.json").read_text())["database"]).measure()


class Wide:
    """A bus with the workflows of this bench."""

    def __init__(self, machine: machines.Machine, database: str) -> None:
        self._machine = machine
        self._port = machine.target.port
        self._keys = {"X-API-Key": machine.admin_key}
        self._connection = psycopg2.connect(database)
        self._connection.autocommit = True
        noop: dict[str, Any] = {"id": "work", "type": "bench_noop", "config": {}}
        pure: dict[str, Any] = {"id": "work", "type": "transform", "config": {"output": "${item * 2}"}}
        count: dict[str, Any] = {"id": "count", "type": "set", "config": {"variables": {"i": "${i + 1}"}}}
        self._define("items", _foreach([pure]))
        self._define("items-effect", _foreach([noop]))
        self._define("rounds", _loop([count]), {"i": 0})
        self._define("rounds-effect", _loop([noop, count]), {"i": 0})
        self._define("branches", _parallel())
        self._define("asleep", {"type": "wait", "config": {"duration": _WEEK_MS}})

    def measure(self) -> dict[str, Any]:
        """The figures by name, and the memory of the orchestration worker after each."""
        self._run("branches", {})
        memory = {"before": self._megabytes()}
        found: dict[str, Any] = {}
        parts: dict[str, Callable[[], dict[str, Any]]] = {
            "foreach_of_computed_items": lambda: self._items("items"),
            "foreach_of_effects": lambda: self._items("items-effect"),
            "loop_of_computed_rounds": lambda: self._rounds("rounds"),
            "loop_of_effects": lambda: self._rounds("rounds-effect"),
            "parallel_calls": lambda: self._branches(10),
            "asleep": self._asleep,
            "foreach_again": lambda: self._items("items"),
        }
        for name, part in parts.items():
            found[name] = part()
            memory[name] = self._megabytes()
            print(name, json.dumps(found[name]), file=sys.stderr, flush=True)
        return {**found, "worker_mb_after": memory}

    def _define(self, name: str, step: dict[str, Any], variables: dict[str, Any] | None = None) -> None:
        definition = {"flow": "sequential", "steps": [{"id": "s", **step}], "variables": variables or {}, "output": {}}
        body = {"name": name, "version": "1.0.0", "definition": definition}
        status, answer = call(self._port, "POST", "/orchestration/workflows", body, self._keys)
        assert status == 201, answer

    def _run(self, name: str, context: dict[str, Any]) -> tuple[str, float]:
        """A run to its end; its id and own seconds."""
        body = {"workflowName": name, "initialContext": context}
        status, answer = call(self._port, "POST", "/orchestration/execute", body, self._keys)
        assert status == 202, answer
        id_ = answer["executionId"]
        until(lambda: self._row("select finished_at from execution where id = %s", id_)[0], LIMIT, f"the end of {name}")
        status, took = self._row(
            "select status, extract(epoch from finished_at - started_at) from execution where id = %s", id_
        )
        assert status == "completed", status
        return id_, float(took)

    def _items(self, name: str) -> dict[str, Any]:
        id_, took = self._run(name, {"range": list(range(ITEMS))})
        events = self._row("select count(*) from event where execution_id = %s", id_)[0]
        ends = self._moments(id_, "item.completed")
        return {
            "items_per_s": round(ITEMS / took),
            "events_per_s": round(events / took),
            **_first_and_last(ends),
        }

    def _rounds(self, name: str) -> dict[str, Any]:
        id_, took = self._run(name, {})
        return {"rounds_per_s": round(ROUNDS / took), **_first_and_last(self._moments(id_, "round.started"))}

    def _branches(self, times: int) -> dict[str, Any]:
        took = [self._run("branches", {})[1] for _ in range(times)]
        middle = statistics.median(took)
        return {"run_p50_ms": round(middle * 1000, 1), "calls_per_s": round(BRANCHES / middle)}

    def _asleep(self) -> dict[str, Any]:
        began = time.monotonic()
        self._sleepers(100)
        listed = self._list_ms("waiting")
        self._sleepers(ASLEEP)
        settled = time.monotonic() - began
        used = self._machine.cpu_seconds()
        time.sleep(5)
        spent = sum(self._machine.cpu_seconds().values()) - sum(used.values())
        return {
            "runs": ASLEEP,
            "all_asleep_after_s": round(settled, 1),
            "cpu_share_of_the_bus_while_they_sleep": round(spent / 5, 3),
            "newest_hundred_listed_ms": {"of_100": listed, f"of_{ASLEEP}": self._list_ms("waiting")},
            "branches_beside_them": self._branches(5),
        }

    def _sleepers(self, wanted: int) -> None:
        """So many runs that wait."""
        asleep = (
            "select count(*) from execution e join job j on j.id = e.id where e.finished_at is null and j.state = 's'"
        )
        target = Target(self._port, "/orchestration/execute", self._keys, lambda n: {"workflowName": "asleep"})
        sent = send(target, range(self._row(asleep)[0], wanted), 16)
        assert not sent.refused, sent.refused
        until(lambda: self._row(asleep)[0] >= wanted, LIMIT, f"{wanted} runs asleep")

    def _list_ms(self, status: str) -> float:
        """The newest page of the list of executions, median."""
        took = []
        for _ in range(20):
            began = time.perf_counter()
            code, _ = call(self._port, "GET", f"/orchestration/executions?status={status}&limit=100", None, self._keys)
            took.append((time.perf_counter() - began) * 1000)
            assert code == 200, code
        return round(statistics.median(took), 1)

    def _moments(self, id_: str, type_: str) -> list[float]:
        with self._connection.cursor() as cursor:
            cursor.execute(
                "select extract(epoch from at)::float8 from event where execution_id = %s and type = %s order by seq",
                (id_, type_),
            )
            return [moment for (moment,) in cursor.fetchall()]

    def _megabytes(self) -> int:
        total = 0
        for root in self._machine.roots:
            for process in root.children(recursive=True):
                try:
                    if "worker orchestration" in " ".join(process.cmdline()):
                        total += process.memory_info().rss
                except psutil.NoSuchProcess:
                    continue
        return total >> 20

    def _row(self, statement: str, *values: Any) -> Any:
        with self._connection.cursor() as cursor:
            cursor.execute(statement, values or None)
            return cursor.fetchone()


def _first_and_last(moments: list[float]) -> dict[str, float]:
    """Seconds of the first and the last thousand, by when they were journaled."""
    return {
        "first_1000_s": round(moments[1000] - moments[0], 3),
        "last_1000_s": round(moments[-1] - moments[-1001], 3),
    }


def _foreach(steps: list[Any]) -> dict[str, Any]:
    return {"type": "foreach", "config": {"items": "${range}", "maxConcurrency": RUNNERS, "steps": steps}}


def _loop(steps: list[Any]) -> dict[str, Any]:
    return {"type": "loop", "config": {"while": f"i < {ROUNDS}", "maxIterations": ROUNDS, "steps": steps}}


def _parallel() -> dict[str, Any]:
    step = {"type": "service_call", "config": {"serviceName": "sink", "method": "step", "payload": {"n": 1}}}
    branches = [{"name": f"b{n}", "steps": [{"id": f"c{n}", **step}]} for n in range(BRANCHES)]
    return {"type": "parallel", "config": {"branches": branches}}
