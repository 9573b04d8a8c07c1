"""How strands end: an item, a branch, a run; and what `onError` makes of a run whose path has failed."""

from __future__ import annotations

import logging
from typing import Any

from esb_workers import drill
from esb_workers.orchestration import flow
from esb_workers.orchestration.failures import TIMEOUT, VALIDATION_ERROR, Failure, StepFailed
from esb_workers.orchestration.programs import Workflow
from esb_workers.orchestration.strand import Reload, Strand
from esb_workers.orchestration.world import StrandPort

log = logging.getLogger("esb.orchestration")


class Ending:
    """A strand, and the ways in which it can end. `gone`: it was let go; `ended`: its run has ended;
    `timer`: something may be due soon."""

    def __init__(self, strand: Strand, workflow: Workflow, world: StrandPort) -> None:
        self.strand = strand
        self.program = workflow.program
        self.execution = strand.execution_names(workflow.name, workflow.version)
        self.world = world
        self.timer = False
        self.gone = False
        self.ended = False

    def next_item(self) -> None:
        """A runner is between items: the next of its range, a new range, or the end."""
        strand = self.strand
        made = strand.item_state(strand.state)
        if not made.frames and strand.take(strand.place["range"]):
            made = strand.item_state(strand.state)
        if made.frames:
            drill.crash_point(drill.MID_BATCH)
            strand.state = made
            return
        strand.join(ok=True)
        self.gone = self.timer = True

    def over(self, error: dict[str, Any] | None) -> None:
        strand, state = self.strand, self.strand.state
        if strand.is_runner:
            self._item_over(error)
        elif not strand.is_root:
            self._branch_over(error)
        elif error is not None and state.handling is None:
            self._unhandled(error)
        elif state.handling is not None and not state.succeeded:
            self.end("failed", error=state.handling)
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
            strand.emit("run.compensating", error=error, steps=self.to_undo())
        else:
            if how == "log-error":
                log.error(
                    "run failed: %s: %s", error.get("class"), error.get("message"), extra={"step": error.get("step")}
                )
                strand.emit("run.error", error=error)
            self.end("failed", error=error)

    def to_undo(self) -> list[dict[str, Any]]:
        """What the completed steps of the run call for, when it is undone; the last entry is undone first."""
        ids = [name for name, step in self.program.steps.items() if step.compensate is not None]
        if not ids:
            return []
        self.strand.flush()
        return flow.compensations(self.program, self.world.completed(ids))

    def _complete(self) -> None:
        state = self.strand.state
        try:
            output = self._output()
        except StepFailed as failed:
            self.end("failed", error=failed.failure.as_error("", 0))
            return
        schema = self.program.output_schema
        if schema is not None and (faults := schema.faults(output, "output")):
            failure = Failure(
                VALIDATION_ERROR, f"the output does not fit outputSchema: {faults[0].path} {faults[0].message}"
            )
            self.end("failed", error=failure.as_error("", 0))
            return
        state.result = {"output": output}
        self.end("completed", output=output)

    def _output(self) -> Any:
        """`succeed`'s, else the definition's, else the context."""
        state = self.strand.state
        if state.result is not None:
            return state.result["output"]
        if self.program.output is None:
            return state.context
        return self.program.output(flow.names_of(self.program, state, self.execution, self.strand.given, {}))

    def deadline_error(self) -> dict[str, Any]:
        return Failure(TIMEOUT, f"the run took longer than {self.program.timeout} ms").as_error("", 0)

    def end(self, status: str, *, output: Any = None, error: dict[str, Any] | None = None) -> None:
        strand = self.strand
        told: dict[str, Any] = {"error": error} if error else {}
        strand.emit(f"run.{status}", **told)
        if strand.finish(status, output=output, error=error) != "ok":
            # Paused or cancelled meanwhile: what was done stands; what was computed since, and the end, do not.
            strand.cut(strand.kept)
            if strand.buffer:
                strand.flush()
            raise Reload
        self.gone = self.ended = True
        self.timer = self.timer or strand.loaded.waited_for
        log.info("run %s", status)
