"""Ten tasks in a Celery chain, on a Redis that is broker and result backend.

BENCH_BROKER=redis://… celery -A bench.peers.chain:tasks worker -c 2
`python -m bench.peers.chain RUNS CALLERS` prints its figures as JSON.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from celery import Celery, chain

tasks = Celery("chain", broker=os.environ.get("BENCH_BROKER"), backend=os.environ.get("BENCH_BACKEND"))
tasks.conf.update(task_acks_late=True, worker_prefetch_multiplier=1)


@tasks.task(name="noop")
def noop(n: int) -> int:
    return n + 1


def started(steps: int) -> Any:
    return chain(noop.s(0), *(noop.s() for _ in range(steps - 1))).apply_async()


def p50_ms(work: Callable[[], Any], times: int) -> float:
    took = []
    for _ in range(times):
        began = time.perf_counter()
        work()
        took.append((time.perf_counter() - began) * 1000)
    return round(sorted(took)[times // 2], 3)


def main(runs: int, callers: int) -> None:
    with ThreadPoolExecutor(callers) as pool:
        list(pool.map(lambda _: started(10).get(timeout=60), range(50)))  # warm
        one, ten = (p50_ms(lambda steps=steps: started(steps).get(timeout=60), 50) for steps in (1, 10))
        began = time.monotonic()
        results = list(pool.map(lambda _: started(10), range(runs)))
        all_started = time.monotonic()
        list(pool.map(lambda result: result.get(timeout=300), results))
        ended = time.monotonic()
    figures = {
        "run_of_1_step_p50_ms": one,
        "run_of_10_steps_p50_ms": ten,
        "marginal_step_p50_ms": round((ten - one) / 9, 3),
        "ten_steps": {
            "starts_per_s": round(runs / (all_started - began)),
            "runs_per_s": round(runs / (ended - began)),
            "steps_per_s": round(runs * 10 / (ended - began)),
        },
    }
    print(json.dumps(figures))


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
