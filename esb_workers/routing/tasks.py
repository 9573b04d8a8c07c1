"""The routing pool: match → transform → fan out, a batch of messages at a time.

Everything between the two statements is computation over what is in memory, so a batch is handled in the pump's own
thread. A message is routed by the routes in force when it is claimed, which are at least those in force when it was
accepted: the claim says which revision that is.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Final

from esb_workers import drill
from esb_workers.expressions.functions import bound
from esb_workers.routing import matching
from esb_workers.routing.book import Book
from esb_workers.routing.gather import Groups, is_group
from esb_workers.routing.matching import Variables
from esb_workers.routing.messages import as_json
from esb_workers.routing.rows import RowMaker
from esb_workers.routing.table import Match
from esb_workers.runtime.batch import BatchEngine
from esb_workers.runtime.engine import Engine
from esb_workers.runtime.ringer import Ringer
from esb_workers.runtime.teller import Teller
from esb_workers.settings import Settings
from esb_workers.store import groups, jobs
from esb_workers.store.engine import Database
from esb_workers.store.jobs import Claim, Done
from esb_workers.store.messages import StoredMessage

log = logging.getLogger(__name__)

NO_ROUTE: Final = "no route took the message"
NO_PART: Final = "the routes that took the message made no delivery of it: an empty list, or no destination for a part"

#: Messages in memory at once, and characters of payload after which what was made of them is recorded: they may be
#: large, and transformed for many destinations.
LOADED: Final = 100
MAX_HELD: Final = 1 << 22

Json = dict[str, Any]


def make_engine(settings: Settings, database: Database, ringer: Ringer) -> Engine:
    """The engine of the routing pool."""
    return BatchEngine("routing", settings, database, ringer, Routing(database, ringer, settings.base_url))


class Routing:
    """What the pool does with a batch of claims."""

    def __init__(self, database: Database, ringer: Ringer, base_url: str) -> None:
        self._database = database
        self._ringer = ringer
        self._deliverers = Teller("delivery", ringer.voice)
        self._book = Book(database)
        self._maker = RowMaker(database, self._book, base_url)
        self._groups = Groups(database, self._book)

    def handle(self, worker: int, claims: Sequence[Claim]) -> Done:
        """Route the claimed messages and record the deliveries in one statement; then look at the claimed groups."""
        with bound(self._book.host):
            return self._handle(worker, claims)

    def _handle(self, worker: int, claims: Sequence[Claim]) -> Done:
        claimed_groups = [claim for claim in claims if claim.cursor is not None and is_group(claim)]
        if not claimed_groups:
            return self._route(worker, claims)
        left = [claim for claim in claims if not is_group(claim)]
        done = self._route(worker, left) if left else Done([])
        for claim in claimed_groups:
            looked = self._groups.look(worker, claim)
            done = Done([*done.ids, *looked.ids], [*done.keys, *looked.keys], timers=True)
        self._ringer.ring("delivery")
        return done

    def _route(self, worker: int, claims: Sequence[Claim]) -> Done:
        done, held = Done([]), 0
        results: list[Json] = []
        for at in range(0, len(claims), LOADED):
            made, size = self._results(claims[at : at + LOADED])
            results, held = [*results, *made], held + size
            if held > MAX_HELD or at + LOADED >= len(claims):
                drill.crash_point(drill.MID_BATCH)
                recorded = self._record(worker, results)
                drill.crash_point(drill.AFTER_COMMIT_BEFORE_RING)
                self._ringer.ring("delivery")
                done = Done([*done.ids, *recorded.ids], [*done.keys, *recorded.keys], done.timers or recorded.timers)
                results, held = [], 0
        return done

    def _results(self, claims: Sequence[Claim]) -> tuple[list[Json], int]:
        """What becomes of messages, and their size, in characters."""
        found = jobs.messages_of(self._database, claims)
        now = datetime.now(UTC)
        results = [{"id": c.id, "attempt": c.attempt, **self._routed(found.get(c.id), c, now)} for c in claims]
        return results, sum(len(stored.payload or "") for stored in found.values())

    def _record(self, worker: int, results: list[Json]) -> Done:
        gathered = {r["id"]: g for r in results if (g := [row["gather"] for row in r["to"] if "gather" in row])}
        if not gathered:
            with self._database.cursor() as cursor:
                done = jobs.routed(cursor, worker, results)
                self._deliverers.committed(cursor, sum(len(result.get("to", ())) for result in results))
                return done
        for result in results:
            result["to"] = [row for row in result["to"] if "gather" not in row]
        return groups.routed(self._database, worker, results, gathered)

    def _routed(self, stored: StoredMessage | None, claim: Claim, now: datetime) -> Json:
        """The deliveries of a message (`to`), or how it ended without any (`end`)."""
        if stored is None or stored.payload is None:
            return _end("failed", "the message is no longer stored")
        if stored.expires_at is not None and stored.expires_at <= now:
            return _end("expired", "expired before it was routed")
        try:
            return self._fan_out(stored, claim, now)
        except Exception:
            # A defect, or a plug-in's: it must not take the rest of the batch with it.
            log.exception("message %s could not be routed", stored.id, extra={"correlationId": stored.correlation_id})
            return _end("failed", "routing failed: see the log of the routing worker")

    def _fan_out(self, stored: StoredMessage, claim: Claim, now: datetime) -> Json:
        message = as_json(stored)
        table = self._book.at(claim.rev)
        variables = matching.variables_of(message, now)
        matches = table.match(message, now, variables) if claim.cursor is None else self._rest(claim, variables)
        if not matches:
            return _end("unroutable", NO_ROUTE)
        rows = [row for match in matches for row in self._maker.rows(stored, message, variables, match)]
        return {"to": rows} if rows else _end("unroutable", NO_PART)

    def _rest(self, claim: Claim, variables: Variables) -> list[Match]:
        """The route whose collection a message is: it has taken it already."""
        route = self._book.route(claim.route_id)
        if route is None:
            return []
        rest = route.after_collection()
        chooser = self._book.chooser
        return [Match(rest, matching.choose(rest, variables, chooser) if rest.is_plain else list(rest.destinations))]


def _end(status: str, reason: str) -> Json:
    return {"to": [], "end": {"status": status, "reason": reason}}
