"""Runs strands: decides by `flow`, lets step types act, and journals what came of it.

The worker that holds a strand runs its steps one after the other. What pure steps do is folded into the next
statement; before an effect everything so far, and that the effect begins, is committed in one statement. A strand
that has to wait is let go; no thread waits with it.

At any point the process may die, or lose the lease to another: what was done is then in the journal except the
effect under way, which is repeated under the same idempotency key. Of a relaxed run these may be the last few: see
`durability`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Final

from esb_workers import logs
from esb_workers.errors import Superseded, Unavailable
from esb_workers.orchestration.advance import Advance
from esb_workers.orchestration.callbacks import Callbacks
from esb_workers.orchestration.programs import Programs
from esb_workers.orchestration.strand import Reload, Strand, Transitions
from esb_workers.orchestration.strandworld import StrandWorld
from esb_workers.orchestration.unwinding import unwind
from esb_workers.orchestration.world import Messages, Services
from esb_workers.store import executions
from esb_workers.store.engine import Database
from esb_workers.store.executions import Signs, StrandKey, Transition
from esb_workers.store.group import Group

log = logging.getLogger("esb.orchestration")

#: How long a strand rests after something about this worker failed, seconds.
RELEASE_SECONDS: Final = 1.0


class Runner:
    """Runs one strand at a time in each thread that calls `run`."""

    def __init__(
        self,
        database: Database,
        programs: Programs,
        services: Services,
        messages: Messages,
        *,
        random: Callable[[], float],
        may_act: Callable[[], bool] = lambda: True,
        fold: bool = True,
        callbacks: Callbacks | None = None,
        queue: str | None = None,
        ring: Callable[[str | None], None] = lambda queue: None,
        tell: Callable[[str], None] = lambda run: None,
    ) -> None:
        self._database = database
        self._programs = programs
        self._services = services
        self._messages = messages
        self._random = random
        self._may_act = may_act
        self._fold = fold
        self._queue = queue
        self._callbacks = callbacks
        self._ring = ring
        self._tell = tell
        self._group: Transitions = Group(self._write)

    def run(self, job: str, attempt: int, *, strict: bool = False) -> bool:
        """Go on with a claimed strand as far as it goes; whether it has set a timer. Raises only for defects.

        `strict`: whatever its definition says of its durability.
        """
        key = StrandKey(job, attempt)
        try:
            while True:
                try:
                    return self._hold(key, strict)
                except Reload:
                    continue
        except Superseded:
            log.info("strand %s was taken over by another worker", job)
        except Unavailable as error:
            log.warning("strand %s is given back: %s", job, error)
            self._release(key)
        return False

    def _write(self, moves: Sequence[Transition]) -> list[Signs | None]:
        with self._database.cursor() as cursor:
            return executions.steps(cursor, moves)

    def _release(self, key: StrandKey) -> None:
        try:
            with self._database.cursor() as cursor:
                executions.release(cursor, key, RELEASE_SECONDS)
        except Unavailable:
            pass  # then the lease does it

    def _hold(self, key: StrandKey, strict: bool) -> bool:
        with self._database.cursor() as cursor:
            loaded = executions.load(cursor, key)
        if loaded is None:
            raise Superseded
        if loaded.parent_job is not None and loaded.seed is None:
            return self._orphaned(key)
        workflow = self._programs.get(loaded.workflow_id)
        strand = Strand(self._database, key, loaded, workflow.program, fold=self._fold, group=self._group)
        with logs.bind(execution_id=loaded.execution_id, correlation_id=loaded.correlation_id):
            if strand.control in ("p", "c") or loaded.status != "open":
                return obey(strand)
            world = StrandWorld(self._database, self._services, self._messages, self._programs, strand, self._callbacks)
            advance = Advance(
                strand,
                workflow,
                world,
                random=self._random,
                may_act=self._may_act,
                queue=self._queue,
                strict=strict,
            )
            if loaded.undo and strand.is_root and (strand.control or strand.state.undo is None):
                timer = unwind(self._database, advance)
            else:
                timer = advance.go()
            if advance.handed is not None:
                self._ring(*advance.handed)
            if advance.ended:
                self._tell(loaded.execution_id)
            return timer

    def _orphaned(self, key: StrandKey) -> bool:
        """The run of a branch has ended and taken its scope along: nothing is left to go on from."""
        with self._database.cursor() as cursor:
            executions.leave(cursor, key, 1, [])
        return False


def obey(strand: Strand) -> bool:
    """Pause or stop, as somebody wants."""
    if strand.control == "p" or (strand.control is None and strand.loaded.status == "paused"):
        if strand.halt():
            return False
        raise Reload
    current = strand.state.frame.current if strand.state.frames else None
    if current is not None and strand.state.frame.step:
        frame = strand.state.frame
        strand.emit("step.cancelled", f"{frame.prefix}{frame.step}")
    strand.leave()
    return False
