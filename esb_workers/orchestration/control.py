"""The front door for steering runs. One transaction an act, in which the run is also read; then a ring.

What is answered is the run as the act left it: nothing that a worker does afterwards is in it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final, TypeVar

import orjson

from esb_workers import drill
from esb_workers.errors import Conflict, FieldError, IllegalTransition, Invalid, NotFound
from esb_workers.orchestration import resuming
from esb_workers.orchestration import state as states
from esb_workers.orchestration.advance import MAX_CONTEXT
from esb_workers.orchestration.model import Program
from esb_workers.orchestration.programs import Programs
from esb_workers.orchestration.state import JSON, Event, State, step_of
from esb_workers.orchestration.strand import Strand
from esb_workers.runtime.ringer import Ringer
from esb_workers.store import control, executions, workflows
from esb_workers.store.control import Held
from esb_workers.store.engine import Cursor, Database
from esb_workers.store.executions import EventRow, StrandKey
from esb_workers.store.json import dumps

T = TypeVar("T")
Read = Callable[[Cursor], T]

POOL: Final = "orchestration"
FINAL: Final = frozenset({"completed", "failed", "cancelled", "compensated", "timed_out"})
_REFUSED: Final = {
    "busy": ("another run has its business key now", "business_key_in_use"),
    "in_flight": ("a call of this run is still under way; it ends first", "call_in_flight"),
}


class Control:
    """What people do to runs. One a process; safe for threads.

    Every act raises NotFound, and IllegalTransition where the run's state does not allow it.
    """

    def __init__(self, database: Database, ringer: Ringer, programs: Programs) -> None:
        self._database = database
        self._ringer = ringer
        self._programs = programs

    # --- acts of one statement -------------------------------------------------------------------------

    def cancel(self, execution_id: str, reason: str | None, read: Read[T], *, compensate: bool, by: str) -> T:
        """Stop a run, and the runs it waits for; with `compensate` what it completed is undone. Calls under way end."""
        said = {"reason": reason, "compensate": compensate}
        told = dumps({"by": by, **said})
        answer = self._act("cancel", execution_id, reason, compensate, told, read=read, detail=said, by=by)
        if not compensate:
            cancel_orphans(self._database)  # what is not reached here, upkeep reaches
        return answer

    def pause(self, execution_id: str, read: Read[T], *, by: str) -> T:
        """Let a run begin nothing more."""
        return self._act("pause", execution_id, dumps({"by": by}), read=read, by=by)

    def resume(self, execution_id: str, read: Read[T], *, by: str) -> T:
        """Let a paused run go on."""
        return self._act("resume", execution_id, dumps({"by": by}), read=read, by=by)

    def retry(self, execution_id: str, read: Read[T], *, by: str) -> T:
        """Go on from the failed step with a fresh budget. Raises Conflict if its business key is another's."""
        return self._act("retry", execution_id, dumps({"by": by}), read=read, by=by)

    def signal(self, execution_id: str, name: str, payload: Any, read: Read[T], *, by: str) -> T:
        """Send a signal; it is kept if nobody waits for it yet."""
        return self._act("signal", execution_id, name, dumps(payload), read=read, detail={"name": name}, by=by)

    def _act(self, action: str, execution_id: str, *args: Any, read: Read[T], by: str, detail: JSON | None = None) -> T:
        with self._acting() as cursor:
            outcome = control.act(cursor, action, execution_id, *args)
            if outcome is None:
                raise NotFound
            if outcome != "ok":
                raise _refusal(action, outcome)
            return self._done(cursor, action, execution_id, read, by=by, detail=detail)

    @staticmethod
    def _done(cursor: Cursor, action: str, execution_id: str, read: Read[T], *, by: str, detail: JSON | None) -> T:
        workflows.note(cursor, by, action, "execution", execution_id, None, detail)
        return read(cursor)

    @contextmanager
    def _acting(self) -> Iterator[Cursor]:
        """The transaction of an act, and the ring behind it."""
        with self._database.raw_transaction() as cursor:
            yield cursor
            drill.crash_point(drill.AFTER_INSERT)
        drill.crash_point(drill.AFTER_COMMIT_BEFORE_RING)
        self._ringer.ring(POOL)

    # --- acts that need to know where the run stands ----------------------------------------------------

    def rerun(self, execution_id: str, step: str | None, edits: JSON, read: Read[T], *, by: str) -> T:
        """Go on from a step (None: the first) of a run that has ended, with `edits` merged into the context.

        What runs again does so under fresh idempotency keys. Raises Invalid for a step it cannot go on from.
        """
        with self._acting() as cursor:
            held = _held(cursor, execution_id)
            if held.status not in FINAL:
                raise _refusal("rerun", held.status)
            program = self._programs.get(held.workflow_id).program
            step = step or program.top.first
            rows = control.all_events(cursor, execution_id, execution_id)
            visits = control.visits(cursor, execution_id)
            state = resuming.rerun(program, held.input, rows, step, edits, visits)
            _check_size(state, "context")
            _reopen(cursor, execution_id, "rerun")
            said = {"by": by, "from": step, "context": edits or None}
            data = dumps({**said, "state": orjson.loads(states.dump(state))})
            n = (rows[-1][0] if rows else 0) + 1
            control.append(cursor, execution_id, execution_id, n, [EventRow("run.rerun", None, None, None, data)])
            control.keep_state(cursor, execution_id, execution_id, n, states.dump(state))
            return self._done(cursor, "rerun", execution_id, read, by=by, detail={"fromStep": step})

    def edit(self, execution_id: str, edits: JSON, read: Read[T], *, by: str) -> T:
        """Merge `edits` into the context of a paused run. Raises Conflict while a call of its root is under way."""
        with self._acting() as cursor:
            held = _held(cursor, execution_id)
            if held.status != "paused":
                raise _refusal("be edited", held.status)
            root = dict(control.strands(cursor, execution_id)).get(execution_id)
            if root is None or root == "f":
                raise _refusal("be edited", "in_flight")
            strand = self._peek(cursor, execution_id, self._programs.get(held.workflow_id).program)
            strand.emit("run.edited", by=by, context=edits)
            _check_size(strand.state, "")
            _write(cursor, strand)
            control.keep_state(cursor, execution_id, execution_id, strand.n - 1, states.dump(strand.state))
            control.touch(cursor, execution_id)
            return self._done(cursor, "edit", execution_id, read, by=by, detail={"context": sorted(edits)})

    def skip(self, execution_id: str, step: str, read: Read[T], *, by: str) -> T:
        """Pass by a step, named by id or path, and go on behind it.

        Of a waiting run, a step it waits at; of a failed one, the step that failed; of a paused one, any, now or when
        it comes to it. Raises Invalid for a step that the workflow does not have.
        """
        with self._acting() as cursor:
            held = _held(cursor, execution_id)
            program = self._programs.get(held.workflow_id).program
            resuming.check_step(program, step, "step")
            if held.status == "failed":
                self._skip_failed(cursor, execution_id, held, program, step, by)
            elif held.status in ("open", "paused"):
                found = self._skip_where_it_stands(cursor, execution_id, program, step, held.status)
                if not found and held.status == "open":
                    raise IllegalTransition(f"the run does not wait at step {step!r}")
                control.note(cursor, execution_id, "run.skipping", dumps({"by": by, "step": step}))
                if not found:
                    control.skip_ahead(cursor, execution_id, step)
                control.touch(cursor, execution_id)
            else:
                raise _refusal("skip a step", held.status)
            answer = self._done(cursor, "skip", execution_id, read, by=by, detail={"step": step})
        cancel_orphans(self._database)
        return answer

    def _skip_where_it_stands(
        self, cursor: Cursor, execution_id: str, program: Program, step: str, status: str
    ) -> bool:
        found = False
        for strand_id, job in control.strands(cursor, execution_id):
            if job not in ("p", "s") and not (status == "paused" and job == "r"):
                continue
            strand = self._peek(cursor, strand_id, program)
            path = None if strand.state.undo is not None else resuming.standing_at(strand.state, step)
            if path is None or (status == "open" and not _waits(strand.state)):
                continue
            control.abandon(cursor, strand_id)
            executions.cull(cursor, strand_id, None)
            strand.emit("step.skipped", path, next=program.steps[step_of(path)].next)
            _write(cursor, strand)
            control.wake(cursor, strand_id)
            found = True
        return found

    def _skip_failed(self, cursor: Cursor, execution_id: str, held: Held, program: Program, step: str, by: str) -> None:
        """Like a retry, but behind the step; one inside a branch is passed by when its branch comes to it."""
        snapshot, rows = executions.journal(cursor, execution_id, execution_id)
        state = resuming.root_state(program, held.input, snapshot, rows)
        undoing = state.undo is not None
        n = (rows[-1][0] if rows else snapshot[0] if snapshot else 0) + 1
        told: JSON = {"by": by, "skip": step}
        states.apply(state, Event(n, "run.retried", None, None, None, told))
        path = resuming.standing_at(state, step)
        if undoing or (path is None and not resuming.failed_inside(orjson.loads(held.error or "{}"), step)):
            raise IllegalTransition(f"the run did not fail at step {step!r}")
        _reopen(cursor, execution_id, "skip a step")
        events = [EventRow("run.retried", None, None, None, dumps(told))]
        if path is not None:
            current = states.place_of(state, path).current
            visit = current.visit if current else n + 1
            data = dumps({"next": program.steps[step_of(path)].next})
            events.append(EventRow("step.skipped", path, visit, None, data))
        else:
            control.skip_ahead(cursor, execution_id, step)
        control.append(cursor, execution_id, execution_id, n, events)

    def _peek(self, cursor: Cursor, strand_id: str, program: Program) -> Strand:
        loaded = executions.peek(cursor, strand_id)
        assert loaded is not None  # its row is locked
        return Strand(self._database, StrandKey(strand_id, 0), loaded, program)


def cancel_orphans(database: Database) -> int:
    """Cancel the runs that were waited for and no longer are; how many. Upkeep does so too: safe to repeat."""
    count = 0
    reason = "nobody waits for it any more"
    told = dumps({"by": "bus", "reason": reason})
    while True:
        with database.cursor() as cursor:
            found = control.orphans(cursor)
            for child in found:
                count += control.act(cursor, "cancel", child, reason, False, told) == "ok"
        if not found:
            return count


def _held(cursor: Cursor, execution_id: str) -> Held:
    held = control.hold(cursor, execution_id)
    if held is None:
        raise NotFound
    return held


def _reopen(cursor: Cursor, execution_id: str, action: str) -> None:
    outcome = control.reopen(cursor, execution_id)
    if outcome != "ok":
        raise _refusal(action, outcome)


def _refusal(action: str, outcome: str) -> Conflict:
    if outcome in _REFUSED:
        detail, code = _REFUSED[outcome]
        return Conflict(detail, code=code)
    return IllegalTransition(f"a run that is {outcome} cannot {action}")


def _waits(state: State) -> bool:
    """Whether the step under way lets time pass: for a timer, a signal, children, a retry."""
    current = state.frame.current if state.frames else None
    return current is not None and (current.memo is not None or current.due is not None)


def _write(cursor: Cursor, strand: Strand) -> None:
    rows = strand.buffer
    control.append(cursor, strand.loaded.execution_id, strand.key.job, strand.n - len(rows), rows)


def _check_size(state: State, field: str) -> None:
    if (size := len(dumps(state.context))) > MAX_CONTEXT:
        raise Invalid([FieldError(field, f"the context would be {size} characters, over {MAX_CONTEXT}")])
