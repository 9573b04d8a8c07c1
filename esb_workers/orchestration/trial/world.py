"""The world of a trial: what services, messages and other runs come to is said beforehand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from esb_workers.orchestration.failures import TIMEOUT, Failure, StepFailed
from esb_workers.orchestration.state import step_of
from esb_workers.orchestration.steps.base import Call, Completed, Failed, Outcome
from esb_workers.orchestration.trial.mocks import Mock, Mocks
from esb_workers.orchestration.trial.strand import TrialStrand
from esb_workers.orchestration.world import Answer, Child, Ending, ForkView, ServiceReply, ServiceRequest
from esb_workers.store.ids import new_id

#: The types whose own code runs in a trial, over mocked ports; other types that act on the world are mocked whole.
_OWN_CODE = frozenset({"service_call", "publish", "sub_workflow", "wait_for_signal"})


@dataclass(frozen=True, slots=True)
class TrialCall:
    """Something that a step would have done to the world."""

    at: datetime
    path: str
    attempt: int
    idempotency_key: str
    input: Any


class TrialWorld:
    """The port `world.StrandPort` of one strand of a trial."""

    def __init__(
        self, strand: TrialStrand, mocks: Mocks, calls: list[TrialCall], logged: list[Mapping[str, Any]]
    ) -> None:
        self._strand = strand
        self._mocks = mocks
        self._calls = calls
        self._logged = logged
        self._call: Call | None = None
        self._children: dict[str, tuple[datetime, Mock]] = {}
        self.stirred = False
        self.correlation_id = strand.loaded.correlation_id
        self.traceparent = strand.loaded.traceparent
        self.allowed: Sequence[str] | None = None
        self.revision = 0

    @property
    def services(self) -> TrialWorld:
        """The services behind the bus."""
        return self

    def run(self, call: Call) -> Outcome:
        """One attempt at a step: by its own code, or by its mock alone."""
        self._call = call
        acts = call.step.kind.effect and call.step.type != "wait_for_signal"
        if acts and call.memo is None:
            self._calls.append(TrialCall(self._strand.clock, call.path, call.attempt, call.idempotency_key, call.input))
        whole = call.step.kind.effect or self._mocks.has(call.path)
        if whole and call.step.type not in _OWN_CODE:
            return self._whole(call)
        return call.step.kind.run(call)

    def _whole(self, call: Call) -> Outcome:
        mock = self._result(call)
        if isinstance(mock, Failure):
            return Failed(mock)
        return Completed(mock.output, merge=isinstance(mock.output, dict))

    def _result(self, call: Call) -> Mock | Failure:
        """What the attempt comes to, after its time."""
        mock = self._mocks.draw(call.path)
        timeout = call.step.timeout
        if timeout is not None and mock.duration > timeout:
            self._strand.spend(timeout)
            return Failure(TIMEOUT, f"no result in {timeout} ms", retryable=True)
        self._strand.spend(mock.duration)
        return mock if mock.error is None else mock.failure()

    def _present(self) -> Call:
        assert self._call is not None  # ports are called by steps, and those by `run`
        return self._call

    def call(self, request: ServiceRequest) -> ServiceReply:
        """One attempt at a service."""
        result = self._result(self._present())
        return result if isinstance(result, Failure) else Answer(200, result.output)

    def longest(self, service: str, revision: int) -> int:
        """Mocks take the time that they name."""
        return 0

    def publish(self, key: str, message: Mapping[str, Any]) -> str:
        """A message that nobody gets; its id."""
        result = self._result(self._present())
        if isinstance(result, Failure):
            raise StepFailed(result)
        return key

    def message_status(self, message_id: str) -> str | None:
        """It is said to have arrived."""
        return "delivered"

    def start(self, workflow: Mapping[str, str], child_id: str, given: Mapping[str, Any], *, wait: bool) -> None:
        """A run that is said to have started."""
        mock = self._mocks.draw(self._present().path)
        ends = self._strand.clock + timedelta(milliseconds=mock.duration)
        self._children[child_id] = ends, mock
        self._strand.pokes.append(ends)

    def child(self, child_id: str) -> Child:
        """Where that run stands."""
        ends, mock = self._children[child_id]
        if ends > self._strand.clock:
            return Child("open")
        if mock.error is None:
            return Child("completed", mock.output)
        return Child("failed", error={"class": mock.error, "message": mock.message})

    def callback(self, path: str, iteration: int) -> Mapping[str, str]:
        """An address that leads nowhere: in a trial the answer is one of its signals."""
        token = f"trial-{path}-{iteration}"
        return {"token": token, "url": f"https://bus.invalid/orchestration/callbacks/{token}"}

    def signal(self, name: str, visit: int) -> tuple[Any] | None:
        """The payload of the signal that is this visit's, if it has come by now."""
        mine = self._strand.key.job, visit
        for signal in self._strand.ledger.signals:
            if signal.name == name and signal.at <= self._strand.clock and signal.taken_by in (None, mine):
                signal.taken_by = mine
                return (signal.payload,)
        return None

    def fork(self, path: str, fork: int) -> ForkView:
        """How the children of a fork stand."""
        scope = self._strand.ledger.scopes.get((self._strand.key.job, f"{path}~{fork}"))
        if scope is None or not scope.closed:
            return ForkView(False, 0, 0, 0, 0, 0)
        endings = [
            Ending(e.iteration or 0, e.type.endswith(".completed"), e.data.get("output"), e.data.get("error"))
            for e in self._strand.ledger.endings(path, fork)
        ]
        return ForkView(True, scope.kids, scope.need, scope.failed, scope.tolerated, scope.open, endings)

    def cull(self, path: str, fork: int) -> None:
        """Stop those children of a fork that still run."""
        self._strand.ledger.cull(self._strand.key.job, f"{path}~{fork}", self._strand.clock)

    def cull_all(self) -> None:
        """Stop every child of this strand."""
        self._strand.ledger.cull(self._strand.key.job, None, self._strand.clock)

    def completed(self, step_ids: Sequence[str]) -> list[tuple[str, Any]]:
        """(path, output) of every completed visit of these steps, in order of completion."""
        return [
            (entry.event.path or "", entry.event.data.get("output"))
            for entry in self._strand.ledger.ordered()
            if entry.event.type == "step.completed" and step_of(entry.event.path or "") in step_ids
        ]

    def log(self, level: str, message: Any, path: str) -> None:
        """A line that a `log` step writes: kept for the report."""
        self._logged.append({"at": self._strand.clock, "level": level, "message": message, "path": path})

    def new_id(self) -> str:
        """A fresh id."""
        return new_id()
