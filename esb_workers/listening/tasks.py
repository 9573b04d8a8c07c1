"""The ingress pool: each claimed job is a consumer that runs until its listener changes or this process stops.

The claim is the lease: it is renewed while the consumer lives, and when the process dies another one claims the job.
"""

from __future__ import annotations

import logging
import threading
import time
from typing import Final

from esb_workers.bus import Bus
from esb_workers.errors import EsbError, Unavailable
from esb_workers.listening.consumer import Consumer
from esb_workers.listening.registry import opened
from esb_workers.listening.sources import Sources
from esb_workers.registry.catalogue import Catalogue
from esb_workers.registry.secrets import Vault
from esb_workers.runtime.engine import Engine
from esb_workers.runtime.ringer import Ringer
from esb_workers.settings import Settings
from esb_workers.store import listeners
from esb_workers.store.engine import Database
from esb_workers.store.jobs import Claim, Held
from esb_workers.store.listeners import ListenerRow
from esb_workers.transport.address import AddressGuard
from esb_workers.transport.brokers.base import Dialer

log = logging.getLogger(__name__)

#: A consumer whose lease has not been renewed for this long is taken for wedged, seconds; at least ten sweeps.
LEASE: Final = 60.0
#: Until a listener that could not be used is looked at again, seconds.
UNUSABLE: Final = 10.0


class IngressEngine(Engine):
    """The engine of this pool."""

    def __init__(self, settings: Settings, database: Database, ringer: Ringer, slots: int) -> None:
        super().__init__("ingress", settings, database, ringer)
        self._slots = slots
        self._vault = Vault(settings.secret_keys)
        self._bus = Bus(database, ringer)
        self._catalogue = Catalogue(database)
        self._sources = Sources(Dialer(AddressGuard.of(settings)))
        self._consumers: dict[Held, Consumer] = {}
        self._claims: dict[Held, tuple[int, Claim]] = {}
        self._lock = threading.Lock()
        self._lease = max(LEASE, settings.sweep_seconds * 10)

    @property
    def consuming(self) -> int:
        """How many consumers run here."""
        return len(self._consumers)

    # --- claiming ------------------------------------------------------------------------------------

    def _work(self) -> bool:
        free = self._slots - len(self._claims)
        if free <= 0:
            return False
        worker = self.worker_id
        claims = self._claim(free, free, lease_seconds=self._lease)
        if not claims:
            return False
        try:
            with self.database.cursor() as cursor:
                rows = listeners.load(cursor, [str((claim.cursor or {}).get("listener")) for claim in claims])
        except BaseException:
            self._let_go(claims)
            raise
        for claim in claims:
            self._start(worker, claim, rows.get(str((claim.cursor or {}).get("listener"))))
        return True

    def _start(self, worker: int, claim: Claim, row: ListenerRow | None) -> None:
        held = Held(claim.id, claim.attempt)
        with self._lock:
            self._claims[held] = worker, claim
        slot = int((claim.cursor or {}).get("n", 0))
        if row is None or not row.enabled or slot >= row.processes:
            self._end(held)
            return
        try:
            listener = opened(row, self._vault)
        except EsbError as error:
            self._refuse(held, row, error)  # such as a password sealed with a key that this process lacks
            return
        consumer = Consumer(
            listener,
            slot,
            bus=self._bus,
            sources=self._sources,
            catalogue=self._catalogue,
            max_bytes=self.settings.max_body_bytes,
            may_act=self.may_act,
            ended=lambda: self._end(held),
        )
        with self._lock:
            self._consumers[held] = consumer
        log.info("listener %s is consumed here", row.name)
        consumer.start()

    def _refuse(self, held: Held, row: ListenerRow, error: EsbError) -> None:
        """What is stored cannot be used here: looked at again after a while, here or elsewhere."""
        log.error("listener %s: %s", row.name, error.detail)
        with self.database.cursor() as cursor:
            listeners.note(cursor, row.id, error.detail)
        self._end(held, UNUSABLE)

    # --- ending --------------------------------------------------------------------------------------

    def _end(self, held: Held, seconds: float = 0.0) -> None:
        """A consumer has ended: give its job on."""
        with self._lock:
            self._consumers.pop(held, None)
            worker, claim = self._claims.pop(held)
        where = claim.cursor or {}
        try:
            with self.database.cursor() as cursor:
                listeners.release(cursor, worker, held, str(where.get("listener")), int(where.get("n", 0)), seconds)
        except Unavailable:
            pass  # unknown to us from here on: the poll gives it back, or the lease runs out
        self._let_go([claim])
        self.poke()

    def _busy(self) -> bool:
        return bool(self._consumers)

    def _finish(self, deadline: float) -> None:
        for consumer in list(self._consumers.values()):
            consumer.stop()
        for consumer in list(self._consumers.values()):
            consumer.join(max(0.0, deadline - time.monotonic()))

    # --- the poll ------------------------------------------------------------------------------------

    def _sweep(self) -> None:
        super()._sweep()
        with self._lock:
            consumers = dict(self._consumers)
        with self.database.cursor() as cursor:
            if consumers:
                ours = listeners.renew(cursor, self.worker_id, list(consumers), self._lease)
                rows = listeners.load(cursor, list({one.listener.id for one in consumers.values()}))
            if listeners.adopt(cursor):
                self.poke()
        for held, consumer in consumers.items():
            if held not in ours or not _same(rows.get(consumer.listener.id), consumer):
                consumer.stop()


def _same(row: ListenerRow | None, consumer: Consumer) -> bool:
    return row is not None and row.enabled and row.etag == consumer.listener.etag


def make_engine(settings: Settings, database: Database, ringer: Ringer, slots: int) -> IngressEngine:
    """The engine of this pool. Raises SettingsError without `ESB_SECRET_KEYS`."""
    return IngressEngine(settings, database, ringer, slots)
