"""Records what slots have come to the end of: many outcomes in one statement, a few milliseconds after the first."""

from __future__ import annotations

import logging
import queue as queues
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final, NamedTuple, Protocol

from esb_workers.store.jobs import Claim

log = logging.getLogger(__name__)

#: Outcomes recorded by one statement at most; how long the first of them waits for others, and how long at most in a
#: steady flow, if nobody waits for them, seconds: there a record made sooner would get in the way of the next message.
FLUSH_COUNT: Final = 200
FLUSH_AFTER: Final = 0.005
FLUSH_LATEST: Final = 0.02


class Result(NamedTuple):
    """What came of a claim. `worker`: the life it was claimed in; `patient`: nothing else waits for the record."""

    worker: int
    claim: Claim
    record: Any
    patient: bool = False


class LetGo(Protocol):
    """Is told of claims that are recorded, or never will be (`lost`, if they were begun)."""

    def __call__(self, claims: Iterable[Claim], *, lost: bool = False) -> None: ...


class Completer:
    """One thread, from `start` until `end`."""

    def __init__(
        self,
        name: str,
        record: Callable[[int, list[Any]], None],
        let_go: LetGo,
        flowing: Callable[[], bool],
        settled: Callable[[Sequence[Result]], None],
    ) -> None:
        """`flowing`: whether results come fast enough to wait for more; `settled` is told of those done with."""
        self._name = name
        self._record, self._let_go, self._flowing, self._settled = record, let_go, flowing, settled
        self._results: queues.SimpleQueue[Result | None] = queues.SimpleQueue()
        self._hurry = threading.Event()  # somebody waits for a record

    def start(self) -> None:
        """Start the thread."""
        threading.Thread(target=self._run, name=self._name, daemon=True).start()

    def put(self, result: Result) -> None:
        """Have this recorded."""
        self._results.put(result)
        # Who sleeps is not waked by each outcome: that would cost as much as to record it.
        if not result.patient or self._results.qsize() >= FLUSH_COUNT:
            self._hurry.set()

    def end(self) -> None:
        """Record what was put before this, and end."""
        self._results.put(None)
        self._hurry.set()

    def _run(self) -> None:
        while (first := self._results.get()) is not None:
            batch = [first]
            self._hurry.clear()  # before it is looked what is there: who comes after that sets it again
            last = self._gather(batch)
            if not last and len(batch) < FLUSH_COUNT:
                # A statement costs nearly the same for ten as for a hundred.
                if not self._may_wait(batch) or self._hurry.wait(FLUSH_LATEST - FLUSH_AFTER):
                    time.sleep(FLUSH_AFTER)
                last = self._gather(batch)
            self._flush(batch)
            if last:
                return

    def _may_wait(self, results: Sequence[Result]) -> bool:
        """Whether nobody waits for these records, and more will come soon."""
        return self._flowing() and all(result.patient for result in results)

    def _gather(self, batch: list[Result]) -> bool:
        """Add what is there to `batch`; whether that was the end of all."""
        try:
            while len(batch) < FLUSH_COUNT:
                result = self._results.get_nowait()
                if result is None:
                    return True
                batch.append(result)
        except queues.Empty:
            pass
        return False

    def _flush(self, batch: list[Result]) -> None:
        by_worker: dict[int, list[Result]] = {}
        for result in batch:
            if result.record is not None:
                by_worker.setdefault(result.worker, []).append(result)
        for worker, results in by_worker.items():
            try:
                self._record(worker, [result.record for result in results])
            except Exception:
                # What is not recorded here is given back and done again: sent twice, under one id.
                log.exception("%d outcomes could not be recorded", len(results))
                self._let_go((result.claim for result in results), lost=True)
        self._let_go(result.claim for result in batch)
        self._settled(batch)
