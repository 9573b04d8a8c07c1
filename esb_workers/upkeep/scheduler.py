"""`esb scheduler`: ticks every `ESB_SWEEP_SECONDS`, and does the housekeeping once a minute."""

from __future__ import annotations

import logging
import os
import signal
import socket
import threading
from collections.abc import Callable, Sequence
from importlib import metadata
from typing import Any

from esb_workers import drill, logs
from esb_workers.app import make_celery
from esb_workers.errors import SettingsError, Unavailable, WorkerDeclaredDead
from esb_workers.queues import POOL_IDS
from esb_workers.runtime.ringer import Ringer
from esb_workers.settings import Settings
from esb_workers.store import bulk as bulk_store
from esb_workers.store import circuits, idempotency, jobs, lanes, migrate, retention, step_queues, workers
from esb_workers.store.engine import Cursor, Database
from esb_workers.upkeep import bulk, replays

log = logging.getLogger(__name__)

#: The number of schedulers in `worker.pool`.
SCHEDULER = 0
#: Partitions, retention and clean-up run this often, seconds.
HOUSEKEEPING_EVERY = 60.0
#: Weeks of partitions made ahead.
WEEKS_AHEAD = 2


#: Makes what is done at each tick besides upkeep itself.
Duty = Callable[[Database, Ringer], Callable[[], Any]]


def run(settings: Settings, *duties: Duty) -> int:
    """Tick until SIGTERM or SIGINT; returns the exit code. Raises SettingsError, SchemaMismatch, Unavailable."""
    if settings.database_url is None:
        raise SettingsError("ESB_DATABASE_URL must be set for the scheduler")
    logs.configure("scheduler", log_format=settings.log_format, level=settings.log_level)
    drill.arm(settings.crash_at)
    database = Database(settings.database_url.get_secret_value(), pool_size=3, name="esb scheduler")
    migrate.check(database)
    ringer = Ringer(make_celery(settings))
    scheduler = Scheduler(settings, database, ringer, [duty(database, ringer) for duty in duties])
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: scheduler.stop())
    scheduler.run()
    ringer.close()
    database.dispose()
    return 0


class Scheduler:
    """One scheduler. Any number may run."""

    def __init__(
        self, settings: Settings, database: Database, ringer: Ringer, duties: Sequence[Callable[[], Any]] = ()
    ) -> None:
        self._settings = settings
        self._duties = duties
        self._database = database
        self._ringer = ringer
        self._stopping = threading.Event()
        self._worker = 0

    def stop(self) -> None:
        """End `run` after the tick under way."""
        self._stopping.set()

    def run(self) -> None:
        """Tick until stopped. An error ends a tick, never the scheduler."""
        period = self._settings.sweep_seconds
        until_housekeeping = 0.0
        while True:
            self._attempt(self._beat)
            self._attempt(self.tick)
            for duty in self._duties:
                self._attempt(duty)
            if until_housekeeping <= 0:
                self._attempt(self.housekeeping)
                until_housekeeping = HOUSEKEEPING_EVERY
            until_housekeeping -= period
            if self._stopping.wait(period):
                break
        self._attempt(self._sign_off)

    def _attempt(self, act: Callable[[], Any]) -> None:
        try:
            act()
        except Unavailable as error:
            log.warning("upkeep waits: %s", error)
        except Exception:
            log.exception("upkeep stumbled")

    def _beat(self) -> None:
        lease = self._settings.lease_seconds
        with self._database.cursor() as cursor:
            try:
                if self._worker:
                    return workers.beat(cursor, self._worker, lease)
            except WorkerDeclaredDead:
                pass
            version = metadata.version("python-esb")
            self._worker = workers.register(cursor, SCHEDULER, socket.gethostname(), os.getpid(), version, lease)
        return None

    def _sign_off(self) -> None:
        with self._database.cursor() as cursor:
            workers.retire(cursor, self._worker)

    def tick(self) -> None:
        """Timers, lost leases, expiry, stranded keys, replays; rings the pools that have got work by it."""
        rung: set[str] = set()
        with self._database.cursor() as cursor:
            wanted = jobs.wanted(cursor)
            if wanted.lost or wanted.due:
                rung |= self._make_ready(cursor)
                wanted = wanted._replace(aside=True)  # the fifth loss sets a row aside
            if jobs.unblock(cursor, wanted):
                rung.update(("routing", "delivery"))
            lanes.caught_up(cursor)
            if jobs.offer_dead_letters(cursor):
                rung.add("delivery")
        if replays.tick(self._database):
            rung.add("delivery")
        if bulk.tick(self._database):
            rung.add("orchestration")
        for pool in rung:
            self._ringer.ring(pool)

    def _make_ready(self, cursor: Cursor) -> set[str]:
        """What is due, and what dead workers held; the bells of the pools that have got work by it."""
        swept = {pool for _, pool in jobs.sweep(cursor, self._settings.lease_seconds)}
        pools = POOL_IDS | {queue.bell: queue.pool for queue in step_queues.all_of(cursor)}
        return {bell for bell, pool in pools.items() if jobs.due(cursor, pool) or pool in swept}

    def housekeeping(self) -> None:
        """Partitions ahead, retention, and what has expired, in chunks."""
        with self._database.cursor() as cursor:
            retention.make_partitions(cursor, WEEKS_AHEAD)
            if found := retention.misplaced(cursor):
                log.error("rows of %s stand in default partitions: is a clock wrong?", ", ".join(found))
            self._retire(cursor)
            bulk_store.forget(cursor, self._settings.retention_days)
            workers.forget(cursor, days=1)
            idempotency.purge(cursor)
            circuits.forget_tallies(cursor)

    def _retire(self, cursor: Cursor) -> None:
        kept = self._settings
        for tables, days in (
            (retention.DETAILS, min(kept.retention_details_days or kept.retention_days, kept.retention_days)),
            (retention.MESSAGES, kept.retention_days),
            (retention.EXECUTIONS, kept.retention_executions_days or kept.retention_days),
            (retention.CHECKS, kept.retention_checks_days or kept.retention_days),
        ):
            for name in retention.drop_partitions(cursor, tables, days):
                log.info("dropped %s: past its retention", name)
        retention.delete_letters(cursor, kept.retention_days)
        retention.delete_executions(cursor, kept.retention_executions_days or kept.retention_days)
        retention.delete_audit(cursor, kept.retention_audit_days)
