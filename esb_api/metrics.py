"""Figures for Prometheus: requests of this API's processes, and the state of work as the database has it.

Request counters live in memory, or, where `PROMETHEUS_MULTIPROC_DIR` is set (the server does), in files that all
processes of the server share. Figures of work are read from the database at each scrape: whichever process is asked
answers for the whole bus; while the database is away they are missing, and `esb_database_up` says why.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from typing import Any, Final

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest, multiprocess, values
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.registry import Collector

from esb_workers.errors import Unavailable
from esb_workers.queues import POOL_IDS
from esb_workers.store import counters, figures, step_queues, unroutable
from esb_workers.store.engine import Database

CONTENT_TYPE = CONTENT_TYPE_LATEST
_SHARED = "PROMETHEUS_MULTIPROC_DIR"
_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


#: Figures that only rise, as the store keeps them.
_COUNTERS: Final = {
    "claimed": "Rows that workers claimed.",
    "recorded": "Outcomes recorded.",
    "superseded": "Outcomes dropped, because their rows had been given to another.",
    "swept": "Rows taken back from workers that died or lost them.",
    "workers_lost": "Workers declared dead: their leases ran out.",
}


class Metrics:
    """The request figures of one application."""

    def __init__(self) -> None:
        if _SHARED in os.environ:
            # The library decides by the environment when it is imported, which may be before the server set it.
            values.ValueClass = values.MultiProcessValue()  # type: ignore[no-untyped-call]
        # A registry of its own, not the library's global one: several applications may live in one process.
        self.registry = CollectorRegistry()
        self._requests = Counter(
            "esb_requests", "Requests answered.", ["operation", "method", "status"], registry=self.registry
        )
        self._seconds = Histogram(
            "esb_request_duration_seconds",
            "Time from request to answer.",
            ["operation"],
            buckets=_BUCKETS,
            registry=self.registry,
        )
        self._shed = Counter("esb_shed", "Requests refused for load.", ["reason"], registry=self.registry)
        self._refused_payloads = Counter(
            "esb_payloads_refused",
            "Messages refused because their payload does not fit its type's schema.",
            ["message_type"],
            registry=self.registry,
        )
        # Finding a labelled child costs more than raising it; there are few combinations.
        self._children: dict[tuple[str, str, int], tuple[Counter, Histogram]] = {}

    def observe(self, operation: str, method: str, status: int, seconds: float) -> None:
        """Count one answered request."""
        key = (operation, method, status)
        found = self._children.get(key)
        if found is None:
            found = (self._requests.labels(operation, method, str(status)), self._seconds.labels(operation))
            self._children[key] = found
        found[0].inc()
        found[1].observe(seconds)

    def shed(self, reason: str) -> None:
        """Count one request that was refused because of the `backlog` or the `database`."""
        self._shed.labels(reason).inc()

    def refuse_payload(self, message_type: str) -> None:
        """Count a message that its type's schema turned down: types are as many as the catalogue has."""
        self._refused_payloads.labels(message_type).inc()

    def text(self, database: Database) -> bytes:
        """Everything, in Prometheus's text form."""
        return generate_latest(self._requests_of_all()) + generate_latest(_work(database))

    def _requests_of_all(self) -> CollectorRegistry:
        if _SHARED not in os.environ:
            return self.registry
        shared = CollectorRegistry()
        multiprocess.MultiProcessCollector(shared)  # type: ignore[no-untyped-call]
        return shared


def _work(database: Database) -> CollectorRegistry:
    registry = CollectorRegistry()
    registry.register(_WorkCollector(database))
    return registry


class _WorkCollector(Collector):
    def __init__(self, database: Database) -> None:
        self._database = database

    def collect(self) -> Iterable[Metric]:
        try:
            with self._database.cursor() as cursor:
                queues, attempts, executions = (
                    figures.queues(cursor), figures.attempts(cursor), figures.executions(cursor)
                )  # fmt: skip
                heard = figures.listeners(cursor)
                warnings = figures.schema_warnings(cursor)
                circuits, held, dead, blocked = (
                    figures.circuits(cursor), figures.held_lanes(cursor), figures.dead_letters(cursor),
                    figures.blocked_keys(cursor),
                )  # fmt: skip
                counts = counters.all_of(cursor)
                stranded = unroutable.count(cursor)
                steps, depths = step_queues.all_of(cursor), step_queues.depths(cursor)
        except Unavailable:
            yield GaugeMetricFamily("esb_database_up", "Whether the database answers.", 0)
            return
        yield GaugeMetricFamily("esb_database_up", "Whether the database answers.", 1)
        names = {number: str(name) for name, number in POOL_IDS.items()} | {queue.pool: queue.bell for queue in steps}
        waiting = {names[row.pool]: row for row in queues} | {step_queues.bell(row.name): row for row in depths}
        depth = {name: float(row.due) for name, row in waiting.items()}
        age = {name: row.oldest_due_age_ms / 1000 for name, row in waiting.items()}
        flight = {name: float(row.in_flight) for name, row in waiting.items()}
        workers = {name: float(row.workers) for name, row in waiting.items()}
        yield _family("esb_queue_depth", "Rows due and not held.", "pool", depth)
        yield _family("esb_queue_oldest_due_age_seconds", "Age of the oldest due row.", "pool", age)
        yield _family("esb_queue_in_flight", "Rows that a worker holds.", "pool", flight)
        yield _family("esb_workers", "Worker processes alive.", "pool", workers)
        yield _family("esb_attempts_last_minute", "Delivery attempts ended in the last 60 s.", "outcome", attempts)
        told = "Messages of the last 60 s that were accepted although they do not fit their type's schema."
        yield _family("esb_schema_warnings_last_minute", told, "message_type", warnings)
        yield _family("esb_circuits", "Instances by the state of their circuit.", "state", circuits)
        yield _family("esb_lanes_held", "Destinations whose deliveries are held.", "reason", held)
        yield GaugeMetricFamily("esb_dead_letters", "Dead letters that wait (counted up to 100000).", dead)
        told = "Messages that no route took and that were not sent again (counted up to 100000)."
        yield GaugeMetricFamily("esb_unroutable_messages", told, stranded)
        yield GaugeMetricFamily("esb_blocked_keys", "Ordering keys that wait for a person.", blocked)
        for name, text in _COUNTERS.items():
            family = CounterMetricFamily(f"esb_{name}", text, labels=["pool"])
            for row in counts:
                if row.name == name:
                    family.add_metric([names.get(row.pool, "scheduler")], row.n)
            yield family
        yield _family("esb_executions", "Executions: the open, and the last hour's.", "status", executions)
        listeners = CounterMetricFamily("esb_listener_messages", "Taken off queues.", labels=["listener", "outcome"])
        for name, outcome, number in heard:
            listeners.add_metric([name, outcome], number)
        yield listeners


def _family(name: str, help_text: str, label: str, counts: Mapping[Any, float]) -> GaugeMetricFamily:
    family = GaugeMetricFamily(name, help_text, labels=[label])
    for word, count in counts.items():
        family.add_metric([word], count)
    return family
