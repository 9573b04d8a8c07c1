"""Queues of plug-in steps are seen and rung like the pools."""

from __future__ import annotations

from collections import Counter
from typing import Any, cast

from esb_api.cli import doctor
from esb_workers.runtime.ringer import Ringer
from esb_workers.settings import Settings
from esb_workers.store import counters, step_queues
from esb_workers.store.engine import Database
from esb_workers.upkeep.scheduler import Scheduler
from tests.support.api import ApiClient
from tests.support.workflows import Bench


class Rings(list[str]):
    """A ringer that remembers."""

    ring = list.append


def announced(database: Database) -> list[int]:
    """Two queues; their pools."""
    with database.cursor() as cursor:
        for name in ("maps", "texts"):
            step_queues.announce(cursor, f"draw-{name}", name, "{}")
        return [queue.pool for queue in step_queues.all_of(cursor)]


def in_queue(bench: Bench, pool: int, state: str) -> None:
    """A run whose strand was handed to a queue an hour ago."""
    bench.start(bench.define([{"id": "s", "type": "log", "config": {"message": "m"}}]))
    rows = bench.query(
        "update job set pool = %s, state = %s, created_at = now() - interval '1 h', run_at = now() - interval '1 h'"
        " where pool = 3 returning id",
        pool,
        state,
    )
    assert len(rows) == 1


def test_metrics_tell_of_each_queue_by_its_own_name(api: ApiClient, bench: Bench) -> None:
    maps, texts = announced(bench.database)
    in_queue(bench, texts, "r")
    with bench.database.cursor() as cursor:
        counters.add(cursor, maps, {"claimed": 2})
        counters.add(cursor, texts, {"claimed": 3})
    lines = api.get("/metrics").text.splitlines()
    for line in (
        'esb_queue_depth{pool="steps.texts"} 1.0',
        'esb_queue_depth{pool="steps.maps"} 0.0',
        'esb_workers{pool="steps.texts"} 0.0',
        'esb_claimed_total{pool="steps.maps"} 2.0',
        'esb_claimed_total{pool="steps.texts"} 3.0',
    ):
        assert line in lines, line
    series = Counter(line.rpartition(" ")[0] for line in lines if line.startswith("esb_") and "{" in line)
    assert [name for name, count in series.items() if count > 1] == [], "a scrape with a series twice is refused whole"


def test_the_doctor_says_that_nobody_works_for_a_queue(bench: Bench) -> None:
    _, texts = announced(bench.database)
    in_queue(bench, texts, "r")
    found = {finding.found.partition(":")[0]: finding for finding in doctor._queues(bench.database)}
    assert found["steps.maps"].verdict == "ok"
    assert found["steps.texts"].verdict == "warning"
    assert "esb worker orchestration --queue texts" in (found["steps.texts"].advice or "")


def test_the_scheduler_rings_for_timers_of_a_queue(bench: Bench, settings: Settings) -> None:
    _, texts = announced(bench.database)
    in_queue(bench, texts, "s")
    rings: Any = Rings()
    scheduler = Scheduler(settings, bench.database, cast(Ringer, rings))
    scheduler.tick()
    assert rings == ["steps.texts"]
    assert bench.query("select state::text from job where pool = %s", texts) == [("r",)]
