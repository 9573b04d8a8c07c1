"""The delivery pool: prepare, call, record, on the resident engine."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Final

from esb_workers import logs
from esb_workers.delivery import record
from esb_workers.delivery.call import Called, Caller
from esb_workers.delivery.plan import RouteBook
from esb_workers.delivery.prepare import Prepared, Preparer
from esb_workers.delivery.record import Record
from esb_workers.registry.choice import Chooser
from esb_workers.registry.instances import Directory
from esb_workers.registry.limits import Limits
from esb_workers.registry.secrets import Vault
from esb_workers.runtime.ringer import Ringer
from esb_workers.runtime.slots import Outcome, SlotEngine
from esb_workers.settings import Settings
from esb_workers.store.engine import Database
from esb_workers.store.jobs import Claim, Done
from esb_workers.transport.adapter import MAX_BODY
from esb_workers.transport.address import AddressGuard
from esb_workers.transport.transports import Transports

log = logging.getLogger(__name__)

#: The longest time-out a route may give, and a margin. A dead worker is noticed by its heartbeat long before; this
#: is for a thread that is wedged.
DEADLINE_SECONDS: Final = 3600.0 + 60.0


class DeliveryWork:
    """What the pool does with a claim: see runtime.slots.SlotWork."""

    deadline_seconds = DEADLINE_SECONDS

    def __init__(self, database: Database, directory: Directory, transports: Transports, roomy: int = MAX_BODY) -> None:
        self._database = database
        self._preparer = Preparer(database, directory, RouteBook())
        self._caller = Caller(Chooser(database, directory), Limits(database, directory), transports, roomy)

    def prepare(self, claims: Sequence[Claim]) -> Sequence[Prepared]:
        """The first act, for all of a claim."""
        return self._preparer.prepare(claims)

    def run(self, task: Prepared) -> Outcome:
        """The second act, and what the third will write."""
        result = self._caller.call(task)
        written = record.of(result)
        if isinstance(result, Called):
            _tell(result, written)
            good = not result.outcome.counts_against_circuit
            return Outcome(written, good=good, timer=written.row["o"] == "retry" or result.chosen.probe)
        return Outcome(written, good=False, timer=True)

    def release(self, claim: Claim) -> Record:
        """Give a row back."""
        return record.release(claim)

    def record(self, worker: int, records: Sequence[Record]) -> Done:
        """The third act, for many at once."""
        return record.write(self._database, worker, records)


def _tell(called: Called, written: Record) -> None:
    message, claim = called.prepared.message, called.prepared.claim
    fields = {
        "messageId": message.id if message else None,
        "deliveryId": claim.id,
        "correlationId": message.correlation_id if message else None,
        "service": called.prepared.service,
        "attempt": claim.attempt,
        "durationMs": called.duration_ms,
        "statusCode": getattr(called.outcome, "status", None),
        "error": called.error,
        "next": written.row["o"],
    }
    said = {name: value for name, value in fields.items() if value is not None}
    if called.outcome.ok:
        logs.event(log, "delivered", **said)
    else:
        logs.event(log, "attempt failed", logging.WARNING, **said)


class DeliveryEngine(SlotEngine):
    """The engine of this pool, with the connections it keeps."""

    def __init__(self, settings: Settings, database: Database, ringer: Ringer, slots: int) -> None:
        self._transports = Transports(AddressGuard.of(settings))
        directory = Directory(Vault(settings.secret_keys))
        work = DeliveryWork(database, directory, self._transports, settings.max_body_bytes)
        super().__init__("delivery", settings, database, ringer, work, slots)

    def stop(self, grace_seconds: float) -> None:
        """Stop in good order and hang up."""
        super().stop(grace_seconds)
        self._transports.close()


def make_engine(settings: Settings, database: Database, ringer: Ringer, slots: int) -> DeliveryEngine:
    """The engine of this pool. Raises SettingsError without `ESB_SECRET_KEYS`."""
    return DeliveryEngine(settings, database, ringer, slots)
