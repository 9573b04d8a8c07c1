"""A strand of a trial: the engine's, with the trial's books in place of the tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

import orjson

from esb_workers.orchestration.model import Program
from esb_workers.orchestration.state import Event
from esb_workers.orchestration.strand import LEASE_MARGIN, Strand
from esb_workers.orchestration.trial.ledger import Entry, Ledger, Scope
from esb_workers.store.executions import Loaded, StrandKey


class TrialStrand(Strand):
    """Keeps its own time: `clock` is how far it has come. `wakes`: when it is to go on; None: when it is woken."""

    def __init__(self, ledger: Ledger, key: str, loaded: Loaded, program: Program, clock: datetime) -> None:
        self.ledger = ledger
        self.clock = clock
        self.wakes: datetime | None = None
        self.pokes: list[datetime] = []  # moments at which something it started will have ended
        self._moments: list[datetime] = []  # of the events in the buffer
        super().__init__(None, StrandKey(key, 1), loaded, program)  # type: ignore[arg-type]  # no database, ever
        ledger.strands[key] = self

    def now(self) -> datetime:
        """The strand's own time."""
        return self.clock

    def spend(self, milliseconds: int) -> None:
        """Time passes for this strand alone."""
        self.clock += timedelta(milliseconds=milliseconds)

    def emit(
        self,
        type_: str,
        path: str | None = None,
        *,
        iteration: int | None = None,
        visit: int | None = None,
        **data: Any,
    ) -> None:
        """As the engine's, stamped with the strand's time."""
        super().emit(type_, path, iteration=iteration, visit=visit, **data)
        self._moments.append(self.clock)

    def cut(self, length: int) -> None:
        """Take back folded events."""
        super().cut(length)
        del self._moments[length:]

    def _commit(self) -> None:
        first = self._first
        for number, (row, at) in enumerate(zip(self.buffer, self._moments, strict=True), first):
            data = row.data or "{}"
            event = Event(number, row.type, row.path, row.visit, row.iteration, orjson.loads(data))
            self.ledger.entries.append(Entry(at, self.key.job, event, data))
        self.buffer.clear()
        self._moments.clear()
        self._chars = self.kept = 0

    def flush(self, *, stand: int | None = None, lease_seconds: float = LEASE_MARGIN) -> None:
        """Write what has been folded."""
        self._commit()

    def park(self, until: datetime | None, *, signal: str | None = None) -> bool:
        """Let go until then, until a signal comes, or until something that it started has ended."""
        self._commit()
        coming = [s.at for s in self.ledger.signals if s.name == signal and s.taken_by is None and s.at > self.clock]
        ends = [at for at in self.pokes if at > self.clock]
        moments = [at for at in (self._with_deadline(until), *coming, *ends) if at is not None]
        if moments:
            self.ledger.wake(self, min(moments))
        return True

    def fork(self, scope: Mapping[str, Any], kids: Sequence[tuple[str, Mapping[str, Any]]]) -> bool:
        """Let go until the children have ended."""
        self._commit()
        count = len(kids)
        self.ledger.scopes[self.key.job, scope["path"]] = Scope(
            count, count, scope["need"], scope["tolerated"], scope["total"], scope["seed"]
        )
        for number, (_, place) in enumerate(kids):
            loaded = self.loaded._replace(
                cursor=dict(place), parent_job=self.key.job, parent_path=scope["path"], seed=scope["seed"], events=[]
            )
            child = f"{self.key.job}/{scope['path']}/{number}"
            self.ledger.wake(TrialStrand(self.ledger, child, loaded, self.program, self.clock), self.clock)
        if (deadline := self._with_deadline(None)) is not None:
            self.ledger.wake(self, deadline)
        return True

    def join(self, *, ok: bool) -> bool:
        """A child's end; whether its parent was woken."""
        self._commit()
        self._gone()
        found = self._scope()
        if found is None:
            return False
        found.open -= 1
        found.failed += not ok
        if found.closed or not found.decided:
            return False
        self.ledger.close(found, self.loaded.parent_job or "", self.clock)
        return True

    def item_failed(self) -> None:
        """Write and count a failed item."""
        self._commit()
        found = self._scope()
        if found is not None:
            found.failed += 1
            if found.failed > found.tolerated and not found.closed:
                self.ledger.close(found, self.loaded.parent_job or "", self.clock)

    def take(self, count: int) -> bool:
        """Get the next item: one at a time, so that runners take them in the order of time."""
        found = self._scope()
        if found is None or found.closed or found.next_i >= (found.total or 0):
            return False
        self.took = found.next_i, found.next_i + 1
        found.next_i += 1
        self._commit()
        return True

    def leave(self) -> None:
        """Stop for good."""
        self.ledger.cull(self.key.job, None, self.clock)
        self._commit()
        self._gone()

    def release(self) -> None:
        """Another strand's turn comes first."""
        self.ledger.wake(self, self.clock)

    def exhausted(self, error: Mapping[str, Any]) -> None:
        """Pause: nobody resumes a trial."""
        self.emit("run.paused", by="bus", error=dict(error))
        self._commit()
        self.ledger.end("paused", None, error, self.clock)

    def finish(self, status: str, *, output: Any = None, error: Mapping[str, Any] | None = None) -> str:
        """End the run."""
        self._commit()
        self.ledger.end(status, output, error, self.clock)
        return "ok"

    def _scope(self) -> Scope | None:
        return self.ledger.scopes.get((self.loaded.parent_job or "", self.loaded.parent_path or ""))

    def _gone(self) -> None:
        self.ledger.strands.pop(self.key.job, None)
