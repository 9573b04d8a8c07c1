"""The delivery pool: prepare, call, record, on the resident engine."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any, Final

from esb_workers import logs
from esb_workers.delivery import forming, record
from esb_workers.delivery.call import Begun, Call, Called, Caller, Result, Starter
from esb_workers.delivery.forming import Formed, Former, NotFormed
from esb_workers.delivery.plan import RouteBook
from esb_workers.delivery.prepare import Prepared, Preparer
from esb_workers.delivery.record import Record
from esb_workers.expressions.functions import bound
from esb_workers.registry.choice import Chooser
from esb_workers.registry.instances import Directory
from esb_workers.registry.limits import Limits
from esb_workers.registry.lookups import Lookups
from esb_workers.registry.retries import Answered
from esb_workers.registry.secrets import Vault
from esb_workers.runtime.ahead import DEPTH
from esb_workers.runtime.ringer import Ringer
from esb_workers.runtime.slots import SlotEngine
from esb_workers.runtime.slotwork import Outcome
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

MakeFormer = Callable[[Database, Directory, Chooser, Transports], Former]


class DeliveryWork:
    """What the pool does with a claim: see runtime.slotwork.SlotWork."""

    deadline_seconds = DEADLINE_SECONDS

    def __init__(
        self,
        database: Database,
        directory: Directory,
        transports: Transports,
        roomy: int = MAX_BODY,
        make_former: MakeFormer | None = None,
        starter: Starter | None = None,
    ) -> None:
        self._database = database
        self._lookups = Lookups()
        self._preparer = Preparer(database, directory, RouteBook())
        chooser = Chooser(database, directory)
        self._caller = Caller(chooser, Limits(database, directory), transports, roomy, starter)
        self._former = make_former(database, directory, chooser, transports) if make_former else None

    def prepare(self, claims: Sequence[Claim]) -> Sequence[Prepared]:
        """The first act, for all of a claim."""
        self._lookups.refresh(self._database, max(claim.rev for claim in claims))
        return self._preparer.prepare(claims)

    def run(self, task: Prepared) -> Outcome:
        """The second act, and what the third will write."""
        if task.claim.cursor and task.claim.cursor.get("raw"):
            return self._form(task)
        with bound(self._lookups.host):  # for an expression in the path
            return _outcome(self._caller.call(task))

    def ready(self, task: Prepared) -> Outcome | Call[Outcome] | None:
        """The second act, to be sent without waiting; None for what only `run` does."""
        cursor, path = task.claim.cursor, task.plan.path
        if cursor and cursor.get("raw"):
            return None
        if path is not None and not path.is_static:
            return None  # an expression, which may look up what it likes
        return self._caller.ready(task, _outcome)

    def _form(self, task: Prepared) -> Outcome:
        if self._former is None:
            raise RuntimeError("this process was made without somebody who makes forms")
        result = forming.form(self._former, task)
        if isinstance(result, NotFormed):
            told = {"delivery_id": task.claim.id, "service": task.service, "error": result.error}
            log.warning("a form could not be made", extra=told)
        return Outcome(record.of_form(result), good=isinstance(result, Formed), timer=True)

    def release(self, claim: Claim) -> Record:
        """Give a row back."""
        return record.release(claim)

    def record(self, worker: int, records: Sequence[Record]) -> Done:
        """The third act, for many at once."""
        return record.write(self._database, worker, records)


def _outcome(result: Result) -> Outcome:
    written = record.of(result)
    if isinstance(result, Called):
        next_ = written.row["o"]
        _tell(result, next_)
        good = not result.outcome.counts_against_circuit
        timer = next_ == "retry" or result.chosen.probe
        return Outcome(written, good, timer, patient=good and not _waited_for(result, written))
    if isinstance(result, Begun):
        _tell_begun(result, written)
        return Outcome(written, good=result.outcome.ok, timer=written.row["o"] == "retry")
    return Outcome(written, good=False, timer=True)


def _waited_for(called: Called, written: Record) -> bool:
    """Whether others wait for this record: the next of its key, or of a service with limits, or what comes of it."""
    goes_on = written.onward is not None or written.reply is not None
    return goes_on or called.prepared.claim.okey is not None or called.chosen.instance.limited


def _tell(called: Called, next_: str) -> None:
    prepared, outcome = called.prepared, called.outcome
    message, claim = prepared.message, prepared.claim
    said: dict[str, Any] = {"deliveryId": claim.id, "service": prepared.service, "attempt": claim.attempt}
    if message is not None:
        said["messageId"], said["correlationId"] = message.id, message.correlation_id
    said["durationMs"] = called.duration_ms
    if isinstance(outcome, Answered):
        said["statusCode"] = outcome.status
    if called.error is not None:
        said["error"] = called.error
    said["next"] = next_
    if outcome.ok:
        logs.event(log, "delivered", **said)
    else:
        logs.event(log, "attempt failed", logging.WARNING, **said)


def _tell_begun(begun: Begun, written: Record) -> None:
    message, claim = begun.prepared.message, begun.prepared.claim
    fields = {
        "messageId": message.id if message else None,
        "deliveryId": claim.id,
        "executionId": begun.execution_id,
        "attempt": claim.attempt,
        "error": begun.error,
        "next": written.row["o"],
    }
    said = {name: value for name, value in fields.items() if value is not None}
    logs.event(log, *(("run started",) if begun.outcome.ok else ("run not started", logging.WARNING)), **said)


class DeliveryEngine(SlotEngine):
    """The engine of this pool, with the connections it keeps."""

    def __init__(
        self,
        settings: Settings,
        database: Database,
        ringer: Ringer,
        slots: int,
        make_former: MakeFormer | None,
        starter: Starter | None,
    ) -> None:
        self._transports = Transports(AddressGuard.of(settings))
        directory = Directory(Vault(settings.secret_keys))
        work = DeliveryWork(database, directory, self._transports, settings.max_body_bytes, make_former, starter)
        super().__init__("delivery", settings, database, ringer, work, slots, ahead=DEPTH, ready=work.ready)

    def stop(self, grace_seconds: float) -> None:
        """Stop in good order and hang up."""
        super().stop(grace_seconds)
        self._transports.close()


def make_engine(
    settings: Settings,
    database: Database,
    ringer: Ringer,
    slots: int,
    make_former: MakeFormer | None = None,
    starter: Starter | None = None,
) -> DeliveryEngine:
    """The engine of this pool. Raises SettingsError without `ESB_SECRET_KEYS`.

    `make_former` makes who makes forms that need calls; without, there must be no routes that enrich.
    Without a `starter`, what is for workflows is held.
    """
    return DeliveryEngine(settings, database, ringer, slots, make_former, starter)
