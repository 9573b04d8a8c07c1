"""A run that is cancelled with compensation: once every call under way has ended, what was completed is undone."""

from __future__ import annotations

from esb_workers.orchestration.advance import Advance
from esb_workers.orchestration.failures import CANCELLED, Failure
from esb_workers.orchestration.strand import Reload, Strand, wire
from esb_workers.store import control
from esb_workers.store.engine import Database
from esb_workers.store.json import dumps


def unwind(database: Database, root: Advance) -> bool:
    """Go on with the root of such a run; whether a timer was set. Raises Reload, Superseded, Unavailable.

    Each part may be repeated: if the process dies, whoever claims the root next finds the wish in the run's row.
    """
    strand = root.strand
    run = strand.loaded.execution_id
    with database.cursor() as cursor:
        for child in control.waited_for(cursor, run):
            told = dumps({"by": f"run:{run}", "reason": "its parent was cancelled"})
            control.act(cursor, "cancel", child, "its parent was cancelled", True, told)
        left = control.settle(cursor, strand.key)
    if left < 0:
        raise Reload
    if left > 0:
        return True
    strand.control = None
    if strand.state.undo is None:
        _begin(root, strand)
    return root.go()


def _begin(root: Advance, strand: Strand) -> None:
    if strand.state.started_at is None:
        strand.emit("run.started", at=wire(strand.loaded.now))
    for frame in reversed(strand.state.frames):
        if frame.current is not None and frame.step is not None:
            strand.emit("step.cancelled", f"{frame.prefix}{frame.step}")
    error = Failure(CANCELLED, "the run was cancelled").as_error("", 0)
    strand.emit("run.compensating", error=error, steps=root.to_undo())
    strand.flush()
