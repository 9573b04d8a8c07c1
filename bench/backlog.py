"""`python -m bench backlog`: claims with 1,000 and with 1,000,000 rows due, and a query over 2 million messages.

On the embedded PostgreSQL alone, without the rest of the bus.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from esb_workers.node.postgres import EmbeddedPostgres
from esb_workers.runtime.engine import last_turn
from esb_workers.store import jobs, message_log, migrate, workers
from esb_workers.store.engine import Cursor, Database

DELIVERY, LANES, CLAIM = 2, 100, 20

LANE = "select esb_lane(2::smallint, 'bench-' || n) from generate_series(1, %s) n"
#: Ids are times, as all that the bus makes.
ROWS = """insert into job (id, pool, lane_id, run_at, message_id)
          select esb_new_id(), 2, l.id, now() - interval '1 hour' + make_interval(secs => n * 1e-4), esb_new_id()
            from generate_series(1, %s) n, lane l where l.name = 'bench-' || (1 + (n + %s) %% 100) order by n"""
#: Over the weeks that have partitions: an id is its time, and a random rest.
LOG = """insert into message (id, client_id, source, type, correlation_id, headers, payload, created_at)
         select (left(esb_uuid_at(t)::text, 14) || '7' || substr(gen_random_uuid()::text, 16))::uuid, null, 'bench',
                'order.created', 'c-' || n / 2, '{}', '{"n": ' || n || '}', t
           from generate_series(%s::int, %s::int) n, lateral (select now() + make_interval(secs => n * 0.9) as t) x"""


def run(many: int = 1_000_000, logged: int = 2_000_000) -> dict[str, Any]:
    """The figures of all three."""
    with tempfile.TemporaryDirectory(prefix="esb-bench-") as folder, EmbeddedPostgres(Path(folder)) as server:
        database = Database(server.url, statement_timeout_ms=600_000)
        try:
            migrate.migrate(server.url)
            with database.cursor() as cursor:
                cursor.execute(LANE, (LANES,))
                cursor.execute("update lane set gate = null, gate_until = '-infinity'")  # no service is registered
                few = _claims(cursor, 1_000)
                much = _claims(cursor, many)
                return {
                    "claim_ms_1000_due": few,
                    f"claim_ms_{many}_due": much,
                    "claim_p99_ratio": round(much["p99"] / few["p99"], 2),
                    f"by_correlation_id_ms_{logged}_messages": _log_queries(cursor, logged),
                }
        finally:
            database.dispose()


def _claims(cursor: Cursor, due: int) -> dict[str, float]:
    """Claims of 20 rows; after each, as many are recorded as delivered and as many are added."""
    cursor.execute("truncate job")
    cursor.execute(ROWS, (due, 0))
    cursor.execute("vacuum analyze job")
    worker = workers.register(cursor, DELIVERY, "bench", 1, "0", 3600)
    after = 0

    def claim() -> list[jobs.Claim]:
        return jobs.claim(cursor, DELIVERY, worker, CLAIM, 2, after_lane=after)

    times = []
    for number in range(2_100):
        began = time.perf_counter()
        claims = claim()
        times.append(time.perf_counter() - began)
        assert len(claims) == CLAIM
        after = last_turn({c.lane_id for c in claims}, after)
        jobs.done(cursor, worker, [{"id": c.id, "attempt": c.attempt, "o": "ok", "detail": {}} for c in claims])
        cursor.execute(ROWS, (CLAIM, number * CLAIM))
    return _percentiles(times[100:])


def _log_queries(cursor: Cursor, logged: int) -> dict[str, float]:
    for at in range(0, logged, 250_000):
        cursor.execute(LOG, (at + 1, min(at + 250_000, logged)))
    cursor.execute("analyze message")

    def ask(number: int) -> Callable[[], Any]:
        wanted = message_log.LogFilter(correlation_ids=[f"c-{number}"])
        return lambda: message_log.page(cursor, 50, None, wanted)[0]

    times = []
    for number in range(600):
        look = ask(number * 1_601 % (logged // 2))
        began = time.perf_counter()
        found = look()
        times.append(time.perf_counter() - began)
        assert found
    return _percentiles(times[100:])


def _percentiles(times: list[float]) -> dict[str, float]:
    times = sorted(1000 * one for one in times)
    return {"p50": round(times[len(times) // 2], 2), "p99": round(times[int(len(times) * 0.99)], 2)}
