"""The same workflows on DBOS, in one process with as many threads as the bus has callers.

`python -m bench.peers.dbos_flow DATABASE_URL SINK_URL RUNS CALLERS` prints its figures as JSON.
"""

from __future__ import annotations

import json
import logging
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import requests
from dbos import DBOS, DBOSConfig

_local = threading.local()
_SINK = sys.argv[2]


@DBOS.step()
def noop(n: int) -> int:
    return n


@DBOS.step()
def call(n: int) -> Any:
    if not hasattr(_local, "session"):
        _local.session = requests.Session()
    return _local.session.post(_SINK, json={"n": n}, timeout=10).json()


@DBOS.workflow()
def noops(steps: int) -> int:
    for n in range(steps):
        noop(n)
    return steps


@DBOS.workflow()
def calls(steps: int) -> int:
    for n in range(steps):
        call(n)
    return steps


def p50_ms(work: Callable[[], Any], times: int) -> float:
    took = []
    for _ in range(times):
        began = time.perf_counter()
        work()
        took.append((time.perf_counter() - began) * 1000)
    return round(sorted(took)[times // 2], 3)


def burst(pool: ThreadPoolExecutor, flow: Callable[[int], Any], steps: int, runs: int) -> dict[str, float]:
    """Start `runs` of them and wait for all: starts and ends per second."""
    began = time.monotonic()
    handles = list(pool.map(lambda _: DBOS.start_workflow(flow, steps), range(runs)))
    started = time.monotonic()
    list(pool.map(lambda handle: handle.get_result(polling_interval_sec=0.01), handles))
    ended = time.monotonic()
    return {
        "starts_per_s": round(runs / (started - began)),
        "runs_per_s": round(runs / (ended - began)),
        "steps_per_s": round(runs * steps / (ended - began)),
    }


def main(url: str, runs: int, callers: int) -> None:
    logging.disable(logging.WARNING)
    config: DBOSConfig = {"name": "bench", "system_database_url": url, "run_admin_server": False, "log_level": "ERROR"}
    DBOS(config=config)
    DBOS.launch()
    with ThreadPoolExecutor(callers) as pool:
        burst(pool, noops, 10, 100)  # warm
        one, ten = p50_ms(lambda: noops(1), 100), p50_ms(lambda: noops(10), 100)
        figures = {
            "run_of_1_step_p50_ms": one,
            "run_of_10_steps_p50_ms": ten,
            "marginal_step_p50_ms": round((ten - one) / 9, 3),
            "ten_steps": burst(pool, noops, 10, runs),
            "five_calls": burst(pool, calls, 5, runs),
        }
    print(json.dumps(figures))
    DBOS.destroy()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[3]), int(sys.argv[4]))
