"""A trial's books: what the tables are to a run. Strands take turns by their own clocks, so no time passes."""

from __future__ import annotations

import heapq
import itertools
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

from esb_workers.orchestration.state import Event
from esb_workers.store.json import dumps
from esb_workers.store.runs import HistoryRow

if TYPE_CHECKING:
    from esb_workers.orchestration.trial.strand import TrialStrand

#: Where a trial ends that does not end by itself: events, and seconds of real time.
MAX_EVENTS: Final = 20_000
MAX_SECONDS: Final = 10.0
#: How far the clock of a trial goes: a wait beyond it is waited for, not through.
MAX_SPAN: Final = timedelta(days=3660)


class Stopped(Exception):
    """The trial is over its limits."""


@dataclass(slots=True)
class Scope:
    """A fork that waits for its children."""

    kids: int
    open: int
    need: int
    tolerated: int
    total: int | None
    seed: str
    failed: int = 0
    next_i: int = 0
    closed: bool = False

    @property
    def decided(self) -> bool:
        """Whether enough children have succeeded, or no longer can; of a foreach, whether all its runners are done."""
        if self.total is not None:
            return self.open == 0
        return self.kids - self.open - self.failed >= self.need or self.failed > self.kids - self.need


@dataclass(slots=True)
class Signal:
    """A signal that comes at a moment."""

    name: str
    payload: Any
    at: datetime
    taken_by: tuple[str, int] | None = None


@dataclass(slots=True)
class Entry:
    """One event of the journal."""

    at: datetime
    strand: str
    event: Event
    data: str


@dataclass(slots=True)
class Ledger:
    """Shared by the strands of one trial."""

    run: str
    now: datetime
    clock: Callable[[], float] = time.monotonic
    entries: list[Entry] = field(default_factory=list)
    strands: dict[str, TrialStrand] = field(default_factory=dict)
    scopes: dict[tuple[str, str], Scope] = field(default_factory=dict)
    signals: list[Signal] = field(default_factory=list)
    ended: tuple[str, Any, Any] | None = None  # status, output, error
    _agenda: list[tuple[datetime, int, str]] = field(default_factory=list)
    _order: itertools.count[int] = field(default_factory=itertools.count)
    _until: float = 0.0

    def __post_init__(self) -> None:
        self._until = self.clock() + MAX_SECONDS

    # --- turns ---------------------------------------------------------------------------------------

    def wake(self, strand: TrialStrand, at: datetime) -> None:
        """A strand is to look at its work then, or sooner if that is planned already; never before its own time."""
        at = max(at, strand.clock)
        if strand.wakes is None or at < strand.wakes:
            strand.wakes = at
            heapq.heappush(self._agenda, (at, next(self._order), strand.key.job))

    def next_turn(self) -> TrialStrand | None:
        """The strand whose turn is next, its clock set; None: nothing will happen by itself."""
        if (at := self.next_time()) is None or at > self.now + MAX_SPAN:
            return None
        strand = self.strands[heapq.heappop(self._agenda)[2]]
        strand.clock, strand.wakes = at, None
        return strand

    def next_time(self) -> datetime | None:
        """When the next turn is."""
        while self._agenda:
            at, _, name = self._agenda[0]
            strand = self.strands.get(name)
            if strand is not None and strand.wakes == at:
                return at
            heapq.heappop(self._agenda)  # it was woken sooner, or is gone
        return None

    def leads(self, strand: TrialStrand) -> bool:
        """Whether no other strand has anything to do before this one's own time."""
        if len(self.entries) > MAX_EVENTS or self.clock() > self._until:
            raise Stopped
        other = self.next_time()
        return other is None or other >= strand.clock

    # --- the journal ---------------------------------------------------------------------------------

    def ordered(self) -> list[Entry]:
        """The journal as it came about."""
        return sorted(self.entries, key=lambda entry: entry.at)

    def rows(self) -> list[HistoryRow]:
        """The journal as the store would answer it, with the signals that came while the run was open."""
        end = max((entry.at for entry in self.entries), default=self.now)
        told = [
            Entry(s.at, "", Event(0, "run.signalled", None, None, None, {}), dumps({"name": s.name}))
            for s in self.signals
            if s.at <= end
        ]
        found = sorted([*told, *self.entries], key=lambda entry: entry.at)
        return [
            HistoryRow(
                seq, entry.at, entry.strand, entry.event.n, entry.event.type, entry.event.path,
                entry.event.visit, entry.event.iteration, entry.data,
            )
            for seq, entry in enumerate(found, 1)
        ]  # fmt: skip

    def endings(self, path: str, fork: int) -> list[Event]:
        """How the children of a fork ended, by index."""
        kinds = ("branch.completed", "branch.failed", "item.completed", "item.failed")
        found = [
            e.event for e in self.entries if e.event.type in kinds and e.event.path == path and e.event.visit == fork
        ]
        return sorted(found, key=lambda event: event.iteration or 0)

    # --- forks ---------------------------------------------------------------------------------------

    def close(self, scope: Scope, parent: str, at: datetime) -> None:
        """A fork is decided: its parent goes on."""
        scope.closed = True
        if parent in self.strands:
            self.wake(self.strands[parent], at)

    def cull(self, parent: str, path: str | None, at: datetime) -> None:
        """Stop the children of one fork of a strand, or of all."""
        for (owner, name), scope in self.scopes.items():
            if owner == parent and path in (None, name):
                scope.closed = True
        for strand in list(self.strands.values()):
            if strand.loaded.parent_job == parent and path in (None, strand.loaded.parent_path):
                strand.control = "c"
                self.wake(strand, at)

    def end(self, status: str, output: Any, error: Mapping[str, Any] | None, at: datetime) -> None:
        """The run is over. What others have done ahead of that moment did not come about."""
        self.ended = status, output, error
        self.entries = [entry for entry in self.entries if entry.at <= at]
        self.strands.clear()

    def waiting(self) -> Sequence[tuple[str, str, datetime | None]]:
        """What the strands wait for: (path, reason, until)."""
        latest: dict[tuple[str, str], tuple[str, datetime | None]] = {}
        for entry in self.entries:
            where = entry.strand, entry.event.path or ""
            if entry.event.type == "step.waiting" and entry.strand in self.strands:
                latest[where] = entry.event.data["reason"], self.strands[entry.strand].wakes
            elif entry.event.type.startswith("step."):
                latest.pop(where, None)
        return [(path, reason, until) for (_, path), (reason, until) in latest.items()]
