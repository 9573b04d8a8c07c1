"""One strand on its way, from a claim to where it lets go."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any, Final

from esb_workers import drill
from esb_workers.errors import Superseded, Unavailable
from esb_workers.orchestration import flow
from esb_workers.orchestration.durability import Lead, repeatable
from esb_workers.orchestration.ending import Ending
from esb_workers.orchestration.failures import (
    CONTEXT_TOO_LARGE,
    EXPRESSION_ERROR,
    INTERNAL_ERROR,
    TIMEOUT,
    VALIDATION_ERROR,
    Failure,
    StepFailed,
)
from esb_workers.orchestration.flow import Exhausted, Handled, Late, Over, Perform, Raise, Rest, Retry
from esb_workers.orchestration.model import Step
from esb_workers.orchestration.programs import Workflow
from esb_workers.orchestration.state import Frame, place_of, put, step_of
from esb_workers.orchestration.steps.base import Call, Completed, Failed, Fork, Kid, Outcome, Round, Waiting, _Onward
from esb_workers.orchestration.strand import LEASE_MARGIN, Reload, Strand, wire
from esb_workers.orchestration.world import StrandPort
from esb_workers.store.ids import new_id
from esb_workers.store.json import dumps

log = logging.getLogger("esb.orchestration")

#: Largest context, characters of JSON.
MAX_CONTEXT: Final = 1 << 20


class Advance(Ending):
    """Moves a strand: decides by `flow`, lets step types act, journals what came of it."""

    #: Whether a step of another queue is left to its workers.
    hands_over = True

    def __init__(
        self,
        strand: Strand,
        workflow: Workflow,
        world: StrandPort,
        *,
        random: Callable[[], float],
        may_act: Callable[[], bool] = lambda: True,
        queue: str | None = None,
        strict: bool = False,
    ) -> None:
        super().__init__(strand, workflow, world)
        self._relaxed = self.program.relaxed and not strict
        self._lead = Lead()
        self._queue = queue
        #: Where the strand was handed to, if it was: whoever works there is to be told.
        self.handed: tuple[str | None] | None = None
        self._random = random
        self._may_act = may_act

    def go(self) -> bool:
        """As far as it goes; whether something may be due soon. Raises Reload, Superseded, Unavailable."""
        if self.strand.is_root and self.strand.state.started_at is None:
            self.strand.emit("run.started", at=wire(self.strand.loaded.now))
            self.strand.kept = len(self.strand.buffer)
        while not self.gone:
            if self.strand.control:
                if self.strand.buffer:
                    self.strand.flush()
                raise Reload
            if not self._may_act():
                self._give_back()
                break
            self._move()
            if not self.gone:
                self.strand.flush_if_full()
        return self.timer or self.world.stirred

    def _give_back(self) -> None:
        if self.strand.buffer:
            self.strand.flush()
        self.strand.release()

    def _move(self) -> None:
        strand, state = self.strand, self.strand.state
        if strand.is_root and strand.loaded.deadline is not None and strand.now() >= strand.loaded.deadline:
            self.end("timed_out", error=self.deadline_error())
        elif strand.is_runner and not state.frames:
            self.next_item()
        elif state.undo is not None:
            self._compensate()
        elif strand.loaded.skips and (passed := self._wanted_skip()) is not None:
            strand.emit("step.skipped", passed[0], next=passed[1])
        else:
            match flow.next_move(self.program, state, strand.now()):
                case Perform() as move:
                    self._perform(move)
                case Rest(until):
                    self._park(until)
                case Raise(step, path, error):
                    self._failed(step, path, Failure.of(error, retryable=step.retry is not None), attempt=1)
                case Late(step, path):
                    self._late(step, path)
                case Over(error):
                    self.over(error)

    def _wanted_skip(self) -> tuple[str, str | None] | None:
        """The step it stands at and where that leads, if somebody wants it passed by."""
        state, skips = self.strand.state, self.strand.loaded.skips
        if not state.frames or state.failure is not None or (step := state.frame.step) is None:
            return None
        path = state.frame.prefix + step
        return (path, self.program.steps[step].next) if path in skips or step in skips else None

    # --- steps ---------------------------------------------------------------------------------------

    def _perform(self, move: Perform, extra: dict[str, Any] | None = None) -> None:
        strand, step = self.strand, move.step
        if step.kind.queue != self._queue and self.hands_over:
            self._hand(step.kind.queue)
            return
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
            try:
                self._started(move, call)
            except TypeError:
                failure = Failure(VALIDATION_ERROR, "the input is no JSON value of 64-bit numbers")
                self._failed(step, move.path, failure, move.attempt)
                return
        patience = step.kind.patience(call) if step.kind.effect else 0
        told = step.kind.effect and (not move.resumed or patience > step.kind.longest)
        if told and not self._put_off(move, patience):
            # One statement: what has happened stands, and this is about to. (After a wait it has begun already: only
            # its time is needed.)
            strand.flush(stand=min(mark, strand.kept), lease_seconds=LEASE_MARGIN + patience / 1000)
            self._lead.committed(time.monotonic(), patience)
            if strand.control:
                raise Reload
        outcome = self._run(call)
        if step.kind.effect:
            drill.crash_point(drill.AFTER_CALL_BEFORE_RECORD)
        self._take(move, outcome, mark)
        if step.kind.effect:
            strand.kept = len(strand.buffer)

    def _put_off(self, move: Perform, patience: int) -> bool:
        """Whether this effect may begin before what came before it is committed, as only a relaxed run's may."""
        first = not move.resumed and move.attempt == 1 and self.strand.state.undo is None
        return self._relaxed and first and repeatable(move.step) and self._lead.extend(time.monotonic(), patience)

    def _hand(self, queue: str | None) -> None:
        """This step's code is elsewhere: its workers go on."""
        if self.strand.buffer:
            self.strand.flush()
        if self.strand.control or not self.strand.hand(queue):
            raise Reload
        self.gone, self.handed = True, (queue,)

    def _late(self, step: Step, path: str) -> None:
        self.world.cull_all()
        failure = Failure(TIMEOUT, f"the step took longer than {step.timeout} ms", retryable=True)
        self._failed(step, path, failure, attempt=1)

    def _opening(self, move: Perform) -> dict[str, Any]:
        """What is journaled when an attempt begins."""
        data: dict[str, Any] = {"attempt": move.attempt}
        if move.step.timeout is not None:
            data["deadline"] = wire(self.strand.now() + timedelta(milliseconds=move.step.timeout))
        return data

    def _started(self, move: Perform, call: Call) -> None:
        data = self._opening(move)
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
        if move.step.id in self.program.callbacks:
            names["callbacks"] = self._callbacks(move.step, frame)
        visits = frame.visits.get(step_of(move.path), 0) - (current is not None) + state.base
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

    def _callbacks(self, step: Step, frame: Frame) -> dict[str, Any]:
        """The addresses of the waits in a step's own list, each for its visit under way, or its next one."""
        return {
            name: self.world.callback(
                frame.prefix + name, frame.visits.get(name, 0) - (frame.current is not None and frame.step == name)
            )
            for name in self.program.callbacks[step.id]
        }

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
                    self.strand.emit("step.started", path, **self._opening(move))
                self.strand.emit("round.started", path, iteration=number, step=first)

    def _completed(self, move: Perform, done: Completed) -> None:
        strand, step = self.strand, move.step
        if step.compensate is not None:
            self._lead.close()
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
            # The sum is an upper bound: names are replaced, and not every output is merged.
            size = len(dumps(self._context_with(done)))
            largest = max(size, len(dumps(done.output)))
        except TypeError:
            raise StepFailed(Failure(VALIDATION_ERROR, "the output is no JSON value of 64-bit numbers")) from None
        if largest > MAX_CONTEXT:
            what = "context" if size > MAX_CONTEXT else "output"
            raise StepFailed(
                Failure(CONTEXT_TOO_LARGE, f"the {what} would be {largest} characters, over {MAX_CONTEXT}")
            )
        return size

    def _context_with(self, done: Completed) -> dict[str, Any]:
        context = {**self.strand.state.context, **done.names, **(done.output if done.merge else {})}
        if done.at is not None:
            put(context, done.at, done.output)
        return context

    def _failed(self, step: Step, path: str, failure: Failure, attempt: int) -> None:
        strand, state = self.strand, self.strand.state
        self._lead.close()  # where an error leads is decided once: a repeat might succeed
        current = place_of(state, path).current
        attempt = current.attempt if current and current.attempt > attempt else attempt
        error = failure.as_error(path, attempt)
        if state.undo is None:
            verdict = flow.after_failure(self.program, step, failure, current.failures if current else 0, self._random)
        else:
            verdict = flow.after_failure(self.program, step, failure, current.failures if current else 0, self._random)
            if not isinstance(verdict, Retry | Exhausted):
                strand.emit("step.failed", path, error=error, attempt=attempt)
                self.end("failed", error={**error, "compensating": (state.handling or {}).get("class")})
                return
        match verdict:
            case Retry(delay):
                due = strand.now() + timedelta(milliseconds=delay)
                strand.emit("step.retrying", path, attempt=attempt, error=error, delayMs=delay, at=wire(due))
            case Handled(target, via, at):
                data: dict[str, Any] = {"at": at} if at else {}
                strand.emit("step.failed", path, error=error, attempt=attempt, next=target, via=via, **data)
            case Exhausted():
                strand.emit("step.exhausted", path, error=error, attempt=attempt)
                strand.exhausted(error)
                self.gone = True
            case _:
                strand.emit("step.failed", path, error=error, attempt=attempt)

    # --- waiting -------------------------------------------------------------------------------------

    def _wait(self, move: Perform, waiting: Waiting) -> None:
        strand = self.strand
        if not move.resumed and not move.step.kind.effect and move.attempt == 1:
            strand.emit("step.started", move.path, **self._opening(move))
        current = place_of(strand.state, move.path).current
        if not move.resumed or current is None or current.memo != dict(waiting.memo):
            until = wire(waiting.until) if waiting.until else None
            strand.emit("step.waiting", move.path, reason=waiting.reason, until=until, memo=dict(waiting.memo))
        self._park(waiting.until, signal=waiting.signal)

    def _park(self, until: datetime | None, *, signal: str | None = None) -> None:
        if self.strand.park(until, signal=signal):
            self.gone = True
            self.timer = self.timer or until is not None or self.strand.loaded.deadline is not None

    def _fork(self, move: Perform, fork: Fork, mark: int) -> None:
        strand, state = self.strand, self.strand.state
        if move.attempt == 1:
            strand.emit("step.started", move.path, **self._opening(move))
        number = strand.n
        names = place_of(state, move.path).names
        seed: dict[str, Any] = {"context": state.context, "steps": state.steps, "error": state.error, "names": names}
        seed |= {"startedAt": state.started_at, "base": state.base}
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
                raise Reload
        self.gone = self.timer = True  # the children are ready: this worker may take them itself

    @staticmethod
    def _kid(kid: Kid, fork: Fork, path: str, number: int) -> dict[str, Any]:
        place = {"fork": number, "path": path, "step": kid.step, "kid": kid.index}
        if kid.runner:
            size = max(1, min(25, (fork.total or 1) // (4 * len(fork.kids))))
            return {**place, "runner": True, "range": size, "item": fork.variables[0], "index": fork.variables[1]}
        return {**place, "prefix": kid.prefix}

    # --- undoing -------------------------------------------------------------------------------------

    def _compensate(self) -> None:
        """Undo the last of what is still to be undone, or end."""
        strand, state = self.strand, self.strand.state
        if not state.undo:
            self.end("compensated", error=state.handling)
            return
        entry = state.undo[-1]
        step = self.program.steps[step_of(entry["path"])].compensate
        assert step is not None  # compensations() chose it for that
        move = flow.perform(step, f"{entry['path']}:compensate", state.frames[0].current, strand.now())
        if isinstance(move, Rest):
            self._park(move.until)
        else:
            self._perform(move, {"output": entry["output"]})
