"""What a pool whose work waits on the outside world does with a row: see runtime.slots."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

from esb_workers.runtime.volley import Call
from esb_workers.store.jobs import Claim, Done


class Outcome(NamedTuple):
    """What a slot made of a claim: the record for the store (None: it is recorded already), whether the destination
    did well (None: it was not tried), whether a timer was set that this engine is to look at, and whether nothing else
    waits for the record.
    """

    record: Any = None
    good: bool | None = True
    timer: bool = False
    patient: bool = False


class SlotWork(Protocol):
    """What a pool does with a row."""

    #: Past this a claim is taken for wedged and given to another worker, seconds.
    deadline_seconds: float

    def prepare(self, claims: Sequence[Claim]) -> Sequence[Any]:
        """Load what the rows need, in as few round trips as there are; one task for each claim, in its order."""
        ...

    def run(self, task: Any) -> Outcome:
        """Do one, in a slot's thread, with no transaction open. Must not raise: an error is an outcome."""
        ...

    def release(self, claim: Claim) -> Any:
        """The record that gives a row back unstarted, or None if the lease running out will do."""
        ...

    def record(self, worker: int, records: Sequence[Any]) -> Done:
        """Write outcomes; answers what was still ours, and the keys that may go on."""
        ...


#: Makes a task's call ready to be sent: see runtime.volley.
Ready = Callable[[Any], "Outcome | Call[Outcome] | None"]
