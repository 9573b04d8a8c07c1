"""An engine for work that is pure computation between two statements: routing."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Final, Protocol

from tenacity import retry, retry_if_exception_type, stop_after_delay, wait_random_exponential

from esb_workers.errors import Unavailable
from esb_workers.queues import PoolName
from esb_workers.runtime.engine import Engine
from esb_workers.runtime.holdings import SUSPECT
from esb_workers.runtime.ringer import Ringer
from esb_workers.settings import Settings
from esb_workers.store.engine import Database
from esb_workers.store.jobs import Claim, Done

#: Rows taken by one claim. A process begins so: should one of them kill it, few others are lost with it.
BATCH: Final = 100
#: The same while one lane alone has work, and it is quick: a claim looks past all that has been claimed before it, so
#: that of five times as many each costs PostgreSQL two thirds [measured, 30,000 due].
LARGE_BATCH: Final = 500
#: Work is quick below this, seconds a row: a large batch then holds up no other lane for long.
QUICK: Final = 0.001
#: How long rows are let gather under load, seconds: see runtime.pace.
GATHER: Final = 0.005
#: A batch is done in far less; past this it is given to another worker, seconds.
DEADLINE: Final = 60.0


class BatchWork(Protocol):
    """What a pool does with a whole claim."""

    def handle(self, worker: int, claims: Sequence[Claim]) -> Done:
        """Do it and record it; answers what was still ours, and the keys that may go on."""
        ...


class BatchEngine(Engine):
    """Claims a batch, handles it in the pump's own thread, and looks again."""

    def __init__(self, pool: PoolName, settings: Settings, database: Database, ringer: Ringer, work: BatchWork) -> None:
        super().__init__(pool, settings, database, ringer)
        self._batch_work = work
        self._last = 0  # rows in the last batch
        self._limit = BATCH
        self._flooded: int | None = None  # the lane that filled the last batch alone

    def _work(self) -> bool:
        worker = self.worker_id
        if self._last < BATCH and self._loaded():
            time.sleep(GATHER)
        began = time.monotonic()
        claims = self._claim(self._limit, self._limit, lease_seconds=DEADLINE)
        self._last, self._limit = len(claims), BATCH
        if not claims:
            return False
        self._handle_all(worker, claims)
        flooded, self._flooded = self._flooded, _flooded(claims)
        # Lanes take turns: of the same lane again means that no other has work.
        if self._flooded is not None and self._flooded == flooded and time.monotonic() - began < QUICK * len(claims):
            self._limit = LARGE_BATCH
        return True

    def _handle_all(self, worker: int, claims: Sequence[Claim]) -> None:
        # What may kill this process comes last and alone, when the others are recorded.
        innocent = [claim for claim in claims if claim.losses < SUSPECT]
        for batch in (innocent, [claim for claim in claims if claim.losses >= SUSPECT]):
            if batch:
                done = self._handled(worker, batch)
                self.figures.recorded += len(done.ids)
                self.figures.superseded += len(batch) - len(done.ids)
                if done.keys:
                    self.promote(done.keys)
                    self.ringer.ring("delivery")  # whose rows these may be, made before but ready only now
                if done.timers:
                    self.poke()

    def _handled(self, worker: int, claims: Sequence[Claim]) -> Done:
        lost = True  # a defect: after five times it is poison
        try:
            done = self._handle(worker, claims)
            lost = False
            return done
        except Unavailable:
            lost = False  # nothing was sent out: it is simply done again
            raise
        finally:
            self._let_go(claims, lost=lost)

    # A deadlock, a database that restarts: the fence makes it harmless to repeat what may have been recorded.
    @retry(
        retry=retry_if_exception_type(Unavailable),
        wait=wait_random_exponential(multiplier=0.1, max=1),
        stop=stop_after_delay(DEADLINE / 2),
        reraise=True,
    )
    def _handle(self, worker: int, claims: Sequence[Claim]) -> Done:
        return self._batch_work.handle(worker, claims)


def _flooded(claims: Sequence[Claim]) -> int | None:
    """The lane that filled a batch alone, if one did."""
    lanes = {claim.lane_id for claim in claims}
    return lanes.pop() if len(claims) >= BATCH and len(lanes) == 1 else None
