"""Deliveries for receivers that nobody can call: they lease a batch, and say of each what became of it.

A lease is an attempt like any other: counted, fenced, recorded by the same words. What differs is who makes it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from esb_workers.delivery import record
from esb_workers.delivery.call import Called, NotCalled
from esb_workers.delivery.plan import RouteBook
from esb_workers.delivery.prepare import Prepared, Preparer
from esb_workers.delivery.record import Record
from esb_workers.errors import Conflict, NotFound
from esb_workers.registry import selection
from esb_workers.registry.choice import LOOK_AGAIN, Chosen
from esb_workers.registry.instances import Directory, Instance
from esb_workers.registry.retries import Answered, Failed
from esb_workers.store import jobs, pulls, revision
from esb_workers.store.engine import Database
from esb_workers.store.jobs import Claim
from esb_workers.store.pulls import NOBODY, Figures, Lease
from esb_workers.transport.transports import PULL_SCHEME

#: The error class of what a receiver gave back.
NACKED: Final = "Nacked"
SUPERSEDED: Final = "superseded"
#: What a record's word is to the receiver.
_OUTCOMES: Final = {"ok": "delivered", "retry": "retrying", "dead": "dead", "block": "blocked"}


@dataclass(frozen=True, slots=True)
class Leased:
    """A delivery that was handed out."""

    prepared: Prepared
    until: datetime


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a receiver says of a lease. `result`: what it answers, as a body; None with `reason`: it did not take it.

    `delay_ms` is instead of what the retry policy says; `final`: it is not to be tried again.
    """

    lease: Lease
    result: bytes | None = None
    reason: str | None = None
    delay_ms: int | None = None
    final: bool = False


class Puller:
    """The front door of receivers that pull. One a process; safe for threads."""

    def __init__(self, database: Database, directory: Directory, settled: Callable[[], None]) -> None:
        """`settled` is called when what was said of leases may have set other work free."""
        self._database = database
        self._directory = directory
        self._preparer = Preparer(database, directory, RouteBook())
        self._settled = settled

    def instance(self, service: str) -> Instance:
        """The service's pull endpoint. Raises NotFound, Conflict when the service is called over a network."""
        with self._database.cursor() as cursor:
            now = revision.current(cursor)
        self._directory.refresh(self._database, now)
        found = self._directory.named(service)
        if not found:
            raise NotFound
        if found[0].scheme != PULL_SCHEME:
            raise Conflict("The service's endpoint is not `pull:`: its deliveries are sent to it.", code="not_pull")
        return found[0]

    def figures(self, service: str) -> Figures:
        """What waits. Raises NotFound, Conflict."""
        self.instance(service)
        with self._database.cursor() as cursor:
            return pulls.figures(cursor, service)

    def lease(self, service: str, limit: int, lease_ms: int) -> list[Leased]:
        """Up to `limit` deliveries, in order."""
        with self._database.cursor() as cursor:
            taken = pulls.lease(cursor, service, limit, lease_ms)
        if not taken:
            return []
        try:
            prepared = self._preparer.prepare([claim for claim, _ in taken])
        except BaseException:
            self._write([record.release(claim) for claim, _ in taken])
            raise
        now = datetime.now(UTC)
        refused = [refusal for one in prepared if (refusal := self._refusal(one, now))]
        if refused:
            self._write([record.of(refusal) for refusal in refused])
        gone = {refusal.prepared.claim.id for refusal in refused}
        return [Leased(one, until) for one, (_, until) in zip(prepared, taken, strict=True) if one.claim.id not in gone]

    def _refusal(self, prepared: Prepared, now: datetime) -> NotCalled | None:
        """Why a delivery is not handed out after all, if so."""
        message = prepared.message
        if message is None or prepared.payload is None:
            return NotCalled(prepared, "dead", "PayloadGone")
        if message.expires_at is not None and message.expires_at <= now:
            return NotCalled(prepared, "expired", "expired")
        registered = self._directory.named(prepared.destination.name)
        if not selection.in_range(registered, prepared.destination.range):
            return NotCalled(prepared, "held", selection.NO_VERSION, LOOK_AGAIN)
        return None

    def settle(self, service: str, verdicts: Sequence[Verdict]) -> list[str]:
        """Record what became of leases: an outcome for each, in order, `superseded` for those that are over."""
        instance = self.instance(service)
        with self._database.cursor() as cursor:
            standing = pulls.standing(cursor, service, [verdict.lease for verdict in verdicts])
        if not standing:
            return [SUPERSEDED] * len(verdicts)
        by_lease = {verdict.lease: verdict for verdict in verdicts}
        prepared = self._preparer.prepare([claim for claim, _ in standing])
        records = [
            _record(one, by_lease[_lease(one.claim)], Chosen(instance), held_ms)
            for one, (_, held_ms) in zip(prepared, standing, strict=True)
        ]
        ours = self._write(records)
        said = {one.row["id"]: _OUTCOMES[one.row["o"]] for one in records if one.row["id"] in ours}
        valid = {_lease(claim) for claim, _ in standing}
        return [said.get(v.lease.id, SUPERSEDED) if v.lease in valid else SUPERSEDED for v in verdicts]

    def lengthen(self, service: str, leases: Sequence[Lease], lease_ms: int) -> list[bool]:
        """Have leases end later; whether each still stood. Raises NotFound, Conflict."""
        self.instance(service)
        with self._database.cursor() as cursor:
            found = pulls.lengthen(cursor, service, leases, lease_ms)
        return [lease in found for lease in leases]

    def _write(self, records: Sequence[Record]) -> set[str]:
        done = record.write(self._database, NOBODY, records)
        if done.keys:
            with self._database.cursor() as cursor:
                jobs.promote(cursor, done.keys)
        self._settled()
        return set(done.ids)


def _lease(claim: Claim) -> Lease:
    return Lease(claim.id, claim.attempt)


def _record(prepared: Prepared, verdict: Verdict, chosen: Chosen, held_ms: int) -> Record:
    """The record of a verdict: as of a call that was answered, or failed, the way the receiver says."""
    taken = verdict.reason is None
    written = record.of(
        Called(
            prepared=prepared,
            chosen=chosen,
            outcome=Answered(200) if taken else Failed(NACKED, transient=not verdict.final),
            duration_ms=held_ms,
            body=verdict.result or b"",
            error=verdict.reason,
        )
    )
    detail: dict[str, Any] = written.row["detail"]
    detail.pop("statusCode", None)  # nobody answered one
    if verdict.delay_ms is not None and written.row["o"] == "retry":
        written.row["delay_ms"] = verdict.delay_ms
    return written
