"""A strand while this worker holds it: its state, the events not yet written, and what others want of it."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Final

import orjson

from esb_workers.clock import to_wire
from esb_workers.errors import Superseded
from esb_workers.orchestration import flow
from esb_workers.orchestration import state as states
from esb_workers.orchestration.model import Program
from esb_workers.orchestration.state import JSON, Event, Frame, State
from esb_workers.store import executions
from esb_workers.store.engine import Database
from esb_workers.store.executions import EventRow, Loaded, Signs, StrandKey, Transition
from esb_workers.store.group import Group
from esb_workers.store.json import dumps

#: Events after which a snapshot is written: so many at most are replayed after a crash.
SNAPSHOT_EVERY: Final = 50
#: Folded events are written at the latest when there are so many of them, or so many characters.
FOLD_EVENTS, FOLD_CHARS = 50, 256 * 1024
#: How long a strand is held beyond the call at hand before it is taken for wedged, seconds; up to 5 s less, for the
#: statement of a transition lengthens a lease only where that matters.
LEASE_MARGIN: Final = 30.0


#: Transitions of runs that are made at the same moment are committed together.
Transitions = Group[Transition, Signs | None]


class Reload(Exception):
    """What is in memory no longer matches what is wanted: look at the database again."""


class Strand:
    """Root, branch, or runner of a foreach. Used by one thread."""

    def __init__(
        self,
        database: Database,
        key: StrandKey,
        loaded: Loaded,
        program: Program,
        *,
        fold: bool = True,
        group: Transitions | None = None,
    ) -> None:
        self.database = database
        self._group = group
        self.key = key
        self.loaded = loaded
        self.program = program
        self.fold = fold
        self.given: JSON = orjson.loads(loaded.input)
        self.place: Mapping[str, Any] = loaded.cursor or {}
        self.seed: JSON = orjson.loads(loaded.seed) if loaded.seed else {}
        self.control = loaded.control
        self.inbox = loaded.inbox
        self.revision = loaded.revision
        self.took: tuple[int, int] = (self.place.get("lo", 0), self.place.get("hi", 0))
        self.buffer: list[EventRow] = []
        #: So many of them tell of what cannot be done again; what follows is computation, void if somebody intervenes.
        self.kept = 0
        self._chars = 0
        self._clock = time.monotonic()
        events = [_event(raw) for raw in loaded.events]
        self.n = (events[-1].n if events else loaded.snapshot_n or 0) + 1
        self._snapshot_n = loaded.snapshot_n or 0
        self.state = self._rebuilt(events)
        self.size = len(loaded.snapshot or loaded.input)  # characters of the context, from above

    # --- where it stands -----------------------------------------------------------------------------

    @property
    def is_root(self) -> bool:
        """Whether it is the run's own strand."""
        return self.key.job == self.loaded.execution_id

    @property
    def is_runner(self) -> bool:
        """Whether it takes items of a foreach."""
        return bool(self.place.get("runner"))

    def now(self) -> datetime:
        """The database's clock."""
        return self.loaded.now + timedelta(seconds=time.monotonic() - self._clock)

    def _rebuilt(self, events: Sequence[Event]) -> State:
        base = states.load(self.loaded.snapshot) if self.loaded.snapshot else self._initial()
        if not self.is_runner:
            return states.replay(base, events)
        ended = [at for at, event in enumerate(events) if event.type in ("item.completed", "item.failed")]
        if ended:
            base, events = State(item=events[ended[-1]].iteration), events[ended[-1] + 1 :]
        return self._runner(base, events)

    def _runner(self, base: State, events: Sequence[Event]) -> State:
        """A runner starts each item from the seed: only the events of its present item count."""
        if not base.frames:
            base = self.item_state(base)
        return states.replay(base, events) if base.frames else base

    def _initial(self) -> State:
        if self.is_runner:
            return State()
        if not self.is_root:
            made = self._from_seed()
            made.frames = [Frame(self.place["prefix"], self.place["step"], dict(self.seed["names"]))]
            return made
        return states.start(self.program.top.first, {**self.program.variables, **self.given})

    def _from_seed(self) -> State:
        seed = self.seed
        made = State(dict(seed["context"]), dict(seed["steps"]), [], seed["error"], seed["startedAt"])
        made.base = seed.get("base", 0)
        return made

    def item_state(self, before: State) -> State:
        """The state at the start of the next item, without frames if the range taken is used up."""
        lo, hi = self.took
        index = before.item + 1 if before.item is not None and lo <= before.item < hi else lo
        if index >= hi:
            return State(item=before.item)
        made = self._from_seed()
        made.item = before.item
        names = {**self.seed["names"], self.place["item"]: self.seed["items"][index], self.place["index"]: index}
        made.frames = [Frame(f"{self.place['path']}[{index}]/", self.place["step"], names)]
        return made

    @property
    def item(self) -> int:
        """The item a runner is at."""
        prefix = self.state.frames[0].prefix
        return int(prefix[prefix.rindex("[") + 1 : -2])

    # --- the journal ---------------------------------------------------------------------------------

    def emit(
        self,
        type_: str,
        path: str | None = None,
        *,
        iteration: int | None = None,
        visit: int | None = None,
        **data: Any,
    ) -> None:
        """Add an event and let it act on the state. It is durable with the next statement of this strand."""
        if visit is None and path is not None and type_.startswith("step."):
            current = states.place_of(self.state, path).current
            visit = current.visit if current else self.n
        text = dumps(data)
        self.buffer.append(EventRow(type_, path, visit, iteration, text))
        self._chars += len(text)
        states.apply(self.state, Event(self.n, type_, path, visit, iteration, data))
        self.n += 1

    def flush(self, *, stand: int | None = None, lease_seconds: float = LEASE_MARGIN) -> None:
        """Write what has been folded. Raises Superseded. With a control set, only the first `stand` events stand."""
        snapshot = states.dump(self.state) if self.n - self._snapshot_n > SNAPSHOT_EVERY and not self.control else None
        keeps = len(self.buffer) if stand is None else stand
        move = Transition(self.key, self._first, tuple(self.buffer), keeps, lease_seconds, snapshot)
        self.revision = self._seen(self._written(move)).revision
        if snapshot is not None and not self.control:
            self._snapshot_n = self.n - 1

    def _written(self, move: Transition) -> Signs | None:
        if self._group is not None and self.is_root:  # of a run there is one, as `steps` needs it
            return self._group.add(move)
        with self.database.cursor() as cursor:
            return executions.step(cursor, move)

    def cut(self, length: int) -> None:
        """Take back folded events from `length` on: what they announce will not happen. The state is void then."""
        self.n -= len(self.buffer) - length
        del self.buffer[length:]

    def flush_if_full(self) -> None:
        """Keep what is folded bounded."""
        if self.buffer and (not self.fold or len(self.buffer) >= FOLD_EVENTS or self._chars >= FOLD_CHARS):
            self.flush()

    def park(self, until: datetime | None, *, signal: str | None = None) -> bool:
        """Let go until then (None: until woken). False: somebody wants something, look again. Raises Superseded."""
        run_at = self._with_deadline(until)
        with self.database.cursor() as cursor:
            signs = executions.park(
                cursor, self.key, self._first, self.buffer, inbox=self.inbox, run_at=run_at, signal=signal
            )
        return self._seen(signs).parked

    def fork(self, scope: Mapping[str, Any], kids: Sequence[tuple[str, Mapping[str, Any]]]) -> bool:
        """Let go until the children have ended; False: nothing was written, look again. Raises Superseded."""
        with self.database.cursor() as cursor:
            signs = executions.fork(
                cursor,
                self.key,
                self._first,
                self.buffer,
                inbox=self.inbox,
                run_at=self._with_deadline(None),
                scope=scope,
                kids=kids,
            )
        if signs is None:
            raise Superseded
        if not signs.parked:
            self.control, self.inbox = signs.control, signs.inbox
            return False
        return True

    def join(self, *, ok: bool) -> bool:
        """A child's end; whether its parent was woken. Raises Superseded."""
        with self.database.cursor() as cursor:
            return executions.join(cursor, self.key, self._first, self.buffer, ok=ok)

    def item_failed(self) -> None:
        """Write and count a failed item. Raises Superseded."""
        with self.database.cursor() as cursor:
            self._seen(executions.item_failed(cursor, self.key, self._first, self.buffer))

    def take(self, count: int) -> bool:
        """Get the next items; False: there are none. Raises Superseded."""
        with self.database.cursor() as cursor:
            took = executions.take(cursor, self.key, self._first, self.buffer, count)
        if took is None:
            return False
        self.took = took
        self.buffer.clear()
        self._chars = self.kept = 0
        return True

    def leave(self) -> None:
        """Stop for good, because somebody wants it."""
        with self.database.cursor() as cursor:
            executions.leave(cursor, self.key, self._first, self.buffer)

    def release(self) -> None:
        """Give it back: somebody else goes on with it."""
        with self.database.cursor() as cursor:
            executions.release(cursor, self.key, 0)

    def hand(self, queue: str | None) -> bool:
        """Give it to the workers of a queue of steps (None: back to the pool); False: look again."""
        with self.database.cursor() as cursor:
            return executions.hand(cursor, self.key, queue)

    def halt(self) -> bool:
        """Stop until resumed; False: no longer wanted."""
        with self.database.cursor() as cursor:
            return executions.halt(cursor, self.key)

    def exhausted(self, error: Mapping[str, Any]) -> None:
        """Write, and pause the whole run at this step. Raises Superseded, Reload if the run has ended meanwhile."""
        with self.database.cursor() as cursor:
            outcome = executions.exhaust(
                cursor, self.key, self._first, self.buffer, dumps({"by": "bus", "error": dict(error)})
            )
        if outcome != "ok":
            raise Reload

    def finish(self, status: str, *, output: Any = None, error: Mapping[str, Any] | None = None) -> str:
        """End the run; 'ok', or the status that forbids it. Raises Superseded."""
        with self.database.cursor() as cursor:
            return executions.finish(
                cursor,
                self.key,
                self._first,
                self.buffer,
                status=status,
                started=self.state.started_at,
                context=dumps(self.state.context),
                output=dumps(output) if status == "completed" else None,
                error=dumps(dict(error)) if error else None,
                error_class=str(error["class"]) if error else None,
            )

    @property
    def _first(self) -> int:
        """The number of the first event not yet written."""
        return self.n - len(self.buffer)

    def _seen(self, signs: Signs | None) -> Signs:
        if signs is None:
            raise Superseded
        self.control, self.inbox = signs.control, signs.inbox
        self.buffer.clear()
        self._chars = self.kept = 0
        return signs

    def _with_deadline(self, until: datetime | None) -> datetime | None:
        """A strand also wakes when one of its steps has taken too long; the root, at the run's deadline to end it."""
        deadline = self.loaded.deadline if self.is_root else None
        moments = (until, deadline, flow.soonest_deadline(self.state))
        return min((moment for moment in moments if moment is not None), default=None)

    # --- names ---------------------------------------------------------------------------------------

    def execution_names(self, workflow: str, version: str) -> JSON:
        """`execution` in expressions; nothing that a replay could see differently."""
        return {
            "id": self.loaded.execution_id,
            "workflow": workflow,
            "version": version,
            "correlationId": self.loaded.correlation_id,
        }


def wire(moment: datetime) -> str:
    """A moment as it is journaled."""
    return to_wire(moment) or ""


def _event(raw: Sequence[Any]) -> Event:
    n, type_, path, visit, iteration, data = raw
    return Event(n, type_, path, visit, iteration, orjson.loads(data) if data else {})
