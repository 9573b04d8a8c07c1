"""Runs strands: decides by `flow`, lets step types act, and journals what came of it.

The worker that holds a strand runs its steps one after the other. What pure steps do is folded into the next
statement; before an effect everything so far, and that the effect begins, is committed in one statement. A strand
that has to wait is let go; no thread waits with it.

At any point the process may die, or lose the lease to another: the journal is then ahead of nothing that was
done except the effect under way, which is repeated under the same idempotency key.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import timedelta
from typing import Any

from esb_workers import drill, logs
from esb_workers.errors import Superseded, Unavailable
from esb_workers.orchestration import flow
from esb_workers.orchestration.failures import (
    CONTEXT_TOO_LARGE,
    EXPRESSION_ERROR,
    INTERNAL_ERROR,
    TIMEOUT,
    VALIDATION_ERROR,
    Failure,
    StepFailed,
)
from esb_workers.orchestration.flow import Handled, Over, Perform, Raise, Rest, Retry
from esb_workers.orchestration.programs import Programs, Workflow
from esb_workers.orchestration.state import place_of, put, step_of
from esb_workers.orchestration.steps.base import Call, Completed, Failed, Fork, Outcome, Round, Waiting, _Onward
from esb_workers.orchestration.strand import LEASE_MARGIN, Strand, wire
from esb_workers.orchestration.strandworld import StrandWorld
from esb_workers.orchestration.world import Services
from esb_workers.store import executions
from esb_workers.store.engine import Database
from esb_workers.store.executions import StrandKey
from esb_workers.store.ids import new_id
from esb_workers.store.json import dumps

log = logging.getLogger("esb.orchestration")

#: Largest context, characters of JSON.
MAX_CONTEXT = 1 << 20
#: How long a strand rests after something about this worker failed, seconds.
RELEASE_SECONDS = 1.0


class _Reload(Exception):
    """What is in memory no longer matches what is wanted: look at the database again."""


class Runner:
    """Runs one strand at a time in each thread that calls `run`."""

    def __init__(
        self,
        database: Database,
        programs: Programs,
        services: Services,
        *,
        random: Callable[[], float],
        may_act: Callable[[], bool] = lambda: True,
        fold: bool = True,
    ) -> None:
        self._database = database
        self._programs = programs
        self._services = services
        self._random = random
        self._may_act = may_act
        self._fold = fold

    def run(self, job: str, attempt: int) -> bool:
        """Go on with a claimed strand as far as it goes; whether it has set a timer. Raises only for defects."""
        key = StrandKey(job, attempt)
        try:
            while True:
                try:
                    return self._hold(key)
                except _Reload:
                    continue
        except Superseded:
            log.info("strand %s was taken over by another worker", job)
        except Unavailable as error:
            log.warning("strand %s is given back: %s", job, error)
            self._release(key)
        return False

    def _release(self, key: StrandKey) -> None:
        try:
            with self._database.cursor() as cursor:
                executions.release(cursor, key, RELEASE_SECONDS)
        except Unavailable:
            pass  # then the lease does it

    def _hold(self, key: StrandKey) -> bool:
        with self._database.cursor() as cursor:
            loaded = executions.load(cursor, key)
        if loaded is None:
            raise Superseded
        workflow = self._programs.get(loaded.workflow_id)
        strand = Strand(self._database, key, loaded, workflow.program, fold=self._fold)
        with logs.bind(execution_id=loaded.execution_id, correlation_id=loaded.correlation_id):
            if strand.control or loaded.status != "open":
                return _obey(strand)
            return _Advance(self, strand, workflow).go()


def _obey(strand: Strand) -> bool:
    """Pause or stop, as somebody wants."""
    if strand.control == "p" or (strand.control is None and strand.loaded.status == "paused"):
        if strand.halt():
            return False
        raise _Reload
    current = strand.state.frame.current if strand.state.frames else None
    if current is not None and strand.state.frame.step:
        frame = strand.state.frame
        strand.emit("step.cancelled", f"{frame.prefix}{frame.step}")
    strand.leave()
    return False


class _Advance:
    """One strand on its way, from a claim to where it lets go."""

    def __init__(self, runner: Runner, strand: Strand, workflow: Workflow) -> None:
        self.runner = runner
        self.strand = strand
        self.program = workflow.program
        self.execution = strand.execution_names(workflow.name, workflow.version)
        self.world = StrandWorld(runner._database, runner._services, runner._programs, strand)
        self.timer = False
        self.gone = False

    def go(self) -> bool:
        if self.strand.is_root and self.strand.state.started_at is None:
            self.strand.emit("run.started", at=wire(self.strand.loaded.now))
        while not self.gone:
            if self.strand.control:
                if self.strand.buffer:
                    self.strand.flush()
                raise _Reload
            if not self.runner._may_act():
                self._give_back()
                break
            self._move()
            if not self.gone:
                self.strand.flush_if_full()
        return self.timer

    def _give_back(self) -> None:
        if self.strand.buffer:
            self.strand.flush()
        with self.runner._database.cursor() as cursor:
            executions.release(cursor, self.strand.key, 0)

    def _move(self) -> None:
        strand, state = self.strand, self.strand.state
        if strand.is_root and strand.loaded.deadline is not None and strand.now() >= strand.loaded.deadline:
            self._end("timed_out", error=self._deadline_error())
        elif strand.is_runner and not state.frames:
            self._next_item()
        elif state.undo is not None:
            self._compensate()
        else:
            match flow.next_move(self.program, state, strand.now()):
                case Perform() as move:
                    self._perform(move)
                case Rest(until):
                    self._park(until)
                case Raise(step, path, error):
                    self._failed(step, path, Failure.of(error, retryable=step.retry is not None), attempt=1)
                case Over(error):
                    self._over(error)

    # --- steps ---------------------------------------------------------------------------------------

    def _perform(self, move: Perform, extra: dict[str, Any] | None = None) -> None:
        strand, step = self.strand, move.step
        mark = len(strand.buffer)
        try:
            call = self._call(move, extra)
            if move.fresh and step.condition is not None and not self._holds(step.condition(call.names)):
                strand.emit("step.skipped", move.path, next=step.next)
                return
            call.input = step.kind.prepare(call)
        except StepFailed as failed:
            self._failed(step, move.path, failed.failure, move.attempt)
            return
        if not move.resumed and (step.kind.effect or move.attempt > 1):
            self._started(move, call)
        if step.kind.effect and not move.resumed:
            # One statement: what has happened stands, and this is about to.
            strand.flush(stand=mark, lease_seconds=LEASE_MARGIN + (step.timeout or 60_000) / 1000)
            if strand.control:
                raise _Reload
        self._take(move, self._run(call), mark)

    def _started(self, move: Perform, call: Call) -> None:
        data: dict[str, Any] = {"attempt": move.attempt}
        if call.input is not None:
            data["input"] = call.input
        current = place_of(self.strand.state, move.path).current
        if move.step.kind.wants_id:
            call.fresh_id = data["id"] = current.id if current and current.id else new_id()
        self.strand.emit("step.started", move.path, **data)
        call.visit = self._visit(move.path)

    def _visit(self, path: str) -> int:
        current = place_of(self.strand.state, path).current
        return current.visit if current else self.strand.n

    def _call(self, move: Perform, extra: dict[str, Any] | None) -> Call:
        strand, state = self.strand, self.strand.state
        frame = place_of(state, move.path)
        current = frame.current
        names = flow.names_of(self.program, state, self.execution, strand.given, {**frame.names, **(extra or {})})
        visits = frame.visits.get(step_of(move.path), 0) - (current is not None)
        return Call(
            step=move.step,
            path=move.path,
            visit=self._visit(move.path),
            iteration=visits,
            attempt=move.attempt,
            names=names,
            now=strand.now(),
            world=self.world,
            execution_id=strand.loaded.execution_id,
            memo=current.memo if current and move.resumed else None,
            fresh_id=(current.id or "") if current else "",
            last=state.frame.last if frame is not state.frame else None,
        )

    @staticmethod
    def _holds(value: Any) -> bool:
        if not isinstance(value, bool):
            raise StepFailed(
                Failure(EXPRESSION_ERROR, f"the condition is not true or false but {type(value).__name__}")
            )
        return value

    def _run(self, call: Call) -> Outcome:
        try:
            return call.step.kind.run(call)
        except StepFailed as failed:
            return Failed(failed.failure)
        except (Superseded, Unavailable):
            raise
        except Exception as error:
            log.exception("step %s failed in a way that is a defect of its type", call.path)
            return Failed(Failure(INTERNAL_ERROR, f"{type(error).__name__} in step type {call.step.type}"))

    def _take(self, move: Perform, outcome: Outcome, mark: int) -> None:
        step, path = move.step, move.path
        match outcome:
            case Completed():
                self._completed(move, outcome)
            case Failed(failure):
                self._failed(step, path, failure, move.attempt)
            case Waiting():
                self._wait(move, outcome)
            case Fork():
                self._fork(move, outcome, mark)
            case Round(number, first):
                if not move.resumed and move.attempt == 1:
                    self.strand.emit("step.started", path, attempt=1)
                self.strand.emit("round.started", path, iteration=number, step=first)

    def _completed(self, move: Perform, done: Completed) -> None:
        strand, step = self.strand, move.step
        if strand.state.undo is not None:
            strand.emit("step.compensated", move.path, output=done.output, attempt=move.attempt)
            return
        try:
            size = self._fits(done)
        except StepFailed as failed:
            self._failed(step, move.path, failed.failure, move.attempt)
            return
        data: dict[str, Any] = {
            "attempt": move.attempt,
            "next": step.next if isinstance(done.next, _Onward) else done.next,
        }
        if not done.without_output:
            data["output"] = done.output
        optional: dict[str, Any] = {"merge": done.merge, "at": done.at, "set": dict(done.names), "final": done.final}
        strand.emit("step.completed", move.path, **data, **{key: value for key, value in optional.items() if value})
        strand.size = size

    def _fits(self, done: Completed) -> int:
        """The context's size with this output in it. Raises StepFailed if it is over the limit, or is no JSON."""
        strand = self.strand
        try:
            size = strand.size + len(dumps(done.output)) + len(dumps(dict(done.names)))
            if size <= MAX_CONTEXT:
                return size
            size = len(dumps(self._context_with(done)))  # the sum is an upper bound: names are replaced
        except TypeError:
            raise StepFailed(Failure(VALIDATION_ERROR, "the output is no JSON value of 64-bit numbers")) from None
        if size > MAX_CONTEXT:
            raise StepFailed(Failure(CONTEXT_TOO_LARGE, f"the context would be {size} characters, over {MAX_CONTEXT}"))
        return size

    def _context_with(self, done: Completed) -> dict[str, Any]:
        context = {**self.strand.state.context, **done.names, **(done.output if done.merge else {})}
        if done.at is not None:
            put(context, done.at, done.output)
        return {"context": context, "output": done.output}

    def _failed(self, step: Any, path: str, failure: Failure, attempt: int) -> None:
        strand, state = self.strand, self.strand.state
        current = place_of(state, path).current
        attempt = current.attempt if current and current.attempt > attempt else attempt
        error = failure.as_error(path, attempt)
        if state.undo is None:
            verdict = flow.after_failure(
                self.program, step, failure, current.failures if current else 0, self.runner._random
            )
        else:
            verdict = flow.after_failure(
                self.program, step, failure, current.failures if current else 0, self.runner._random
            )
            if not isinstance(verdict, Retry):
                strand.emit("step.failed", path, error=error, attempt=attempt)
                self._end("failed", error={**error, "compensating": (state.handling or {}).get("class")})
                return
        match verdict:
            case Retry(delay):
                due = strand.now() + timedelta(milliseconds=delay)
                strand.emit("step.retrying", path, attempt=attempt, error=error, delayMs=delay, at=wire(due))
            case Handled(target, via, at):
                data: dict[str, Any] = {"at": at} if at else {}
                strand.emit("step.failed", path, error=error, attempt=attempt, next=target, via=via, **data)
            case _:
                strand.emit("step.failed", path, error=error, attempt=attempt)

    # --- waiting -------------------------------------------------------------------------------------

    def _wait(self, move: Perform, waiting: Waiting) -> None:
        strand = self.strand
        if not move.resumed and not move.step.kind.effect and move.attempt == 1:
            strand.emit("step.started", move.path, attempt=1)
        current = place_of(strand.state, move.path).current
        if not move.resumed or current is None or current.memo != dict(waiting.memo):
            until = wire(waiting.until) if waiting.until else None
            strand.emit("step.waiting", move.path, reason=waiting.reason, until=until, memo=dict(waiting.memo))
        self._park(waiting.until, signal=waiting.signal)

    def _park(self, until: Any, *, signal: str | None = None) -> None:
        if self.strand.park(until, signal=signal):
            self.gone = True
            self.timer = self.timer or until is not None or self.strand.loaded.deadline is not None

    def _fork(self, move: Perform, fork: Fork, mark: int) -> None:
        strand, state = self.strand, self.strand.state
        if move.attempt == 1:
            strand.emit("step.started", move.path, attempt=1)
        number = strand.n
        names = place_of(state, move.path).names
        seed: dict[str, Any] = {"context": state.context, "steps": state.steps, "error": state.error, "names": names}
        seed["startedAt"] = state.started_at
        if fork.items is not None:
            seed["items"] = fork.items
        strand.emit("step.waiting", move.path, reason="children", until=None, memo={"fork": number})
        scope = {
            "path": f"{move.path}~{number}",
            "need": fork.need,
            "tolerated": fork.tolerated,
            "total": fork.total,
            "seed": dumps(seed),
        }
        kids = [(new_id(), self._kid(kid, fork, move.path, number)) for kid in fork.kids]
        while not strand.fork(scope, kids):
            if strand.control:
                strand.cut(mark)
                if strand.buffer:
                    strand.flush()
                raise _Reload
        self.gone = self.timer = True  # the children are ready: this worker may take them itself

    @staticmethod
    def _kid(kid: Any, fork: Fork, path: str, number: int) -> dict[str, Any]:
        place = {"fork": number, "path": path, "step": kid.step, "kid": kid.index}
        if kid.runner:
            size = max(1, min(25, (fork.total or 1) // (4 * len(fork.kids))))
            return {**place, "runner": True, "range": size, "item": fork.variables[0], "index": fork.variables[1]}
        return {**place, "prefix": kid.prefix}

    # --- ends ----------------------------------------------------------------------------------------

    def _next_item(self) -> None:
        """A runner is between items: the next of its range, a new range, or the end."""
        strand = self.strand
        made = strand.item_state(strand.state)
        if not made.frames and strand.take(strand.place["range"]):
            made = strand.item_state(strand.state)
        if made.frames:
            strand.state = made
            return
        strand.join(ok=True)
        self.gone = self.timer = True

    def _over(self, error: dict[str, Any] | None) -> None:
        strand, state = self.strand, self.strand.state
        if strand.is_runner:
            self._item_over(error)
        elif not strand.is_root:
            self._branch_over(error)
        elif error is not None and state.handling is None:
            self._unhandled(error)
        elif state.handling is not None and not state.succeeded:
            self._end("failed", error=state.handling)
        else:
            self._complete()

    def _item_over(self, error: dict[str, Any] | None) -> None:
        strand = self.strand
        told: dict[str, Any] = {"error": error} if error is not None else {"output": strand.state.frame.last}
        kind = "item.completed" if error is None else "item.failed"
        strand.emit(kind, strand.place["path"], iteration=strand.item, visit=strand.place["fork"], **told)
        if error is not None:
            strand.item_failed()

    def _branch_over(self, error: dict[str, Any] | None) -> None:
        strand = self.strand
        told: dict[str, Any] = {"error": error} if error is not None else {"output": strand.state.frame.last}
        kind = "branch.completed" if error is None else "branch.failed"
        strand.emit(kind, strand.place["path"], iteration=strand.place["kid"], visit=strand.place["fork"], **told)
        woken = strand.join(ok=error is None)
        self.gone, self.timer = True, self.timer or woken

    def _unhandled(self, error: dict[str, Any]) -> None:
        """A run's path has failed: what `errorHandling.onError` says."""
        strand, how = self.strand, self.program.on_error
        if how in self.program.top.steps:
            strand.emit("run.handling", error=error, step=how)
        elif how == "compensate":
            strand.emit("run.compensating", error=error, steps=self._to_undo())
        else:
            if how == "log-error":
                log.error(
                    "run failed: %s: %s", error.get("class"), error.get("message"), extra={"step": error.get("step")}
                )
                strand.emit("run.error", error=error)
            self._end("failed", error=error)

    def _to_undo(self) -> list[dict[str, Any]]:
        ids = [name for name, step in self.program.steps.items() if step.compensate is not None]
        if not ids:
            return []
        self.strand.flush()
        return flow.compensations(self.program, self.world.completed(ids))

    def _compensate(self) -> None:
        """Undo the last of what is still to be undone, or end."""
        strand, state = self.strand, self.strand.state
        if not state.undo:
            self._end("compensated", error=state.handling)
            return
        entry = state.undo[-1]
        step = self.program.steps[step_of(entry["path"])].compensate
        assert step is not None  # compensations() chose it for that
        move = flow.perform(step, f"{entry['path']}:compensate", state.frames[0].current, strand.now())
        if isinstance(move, Rest):
            self._park(move.until)
        else:
            self._perform(move, {"output": entry["output"]})

    def _complete(self) -> None:
        strand, state = self.strand, self.strand.state
        try:
            output = self._output()
        except StepFailed as failed:
            self._end("failed", error=failed.failure.as_error("", 0))
            return
        schema = self.program.output_schema
        if schema is not None and (faults := schema.faults(output, "output")):
            failure = Failure(
                VALIDATION_ERROR, f"the output does not fit outputSchema: {faults[0].path} {faults[0].message}"
            )
            self._end("failed", error=failure.as_error("", 0))
            return
        state.result = {"output": output}
        self._end("completed", output=output)

    def _output(self) -> Any:
        """`succeed`'s, else the definition's, else the context."""
        state = self.strand.state
        if state.result is not None:
            return state.result["output"]
        if self.program.output is None:
            return state.context
        return self.program.output(flow.names_of(self.program, state, self.execution, self.strand.given, {}))

    def _deadline_error(self) -> dict[str, Any]:
        return Failure(TIMEOUT, f"the run took longer than {self.program.timeout} ms").as_error("", 0)

    def _end(self, status: str, *, output: Any = None, error: dict[str, Any] | None = None) -> None:
        strand = self.strand
        told: dict[str, Any] = {"error": error} if error else {}
        strand.emit(f"run.{status}", **told)
        drill.crash_point(drill.AFTER_CALL_BEFORE_RECORD)
        if strand.finish(status, output=output, error=error) != "ok":
            # Paused or cancelled meanwhile: what has happened stands, that the run ended does not.
            strand.cut(len(strand.buffer) - 1)
            strand.flush()
            raise _Reload
        self.gone = True
        self.timer = self.timer or strand.loaded.parent_job is not None
        log.info("run %s", status)
