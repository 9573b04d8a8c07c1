"""The world as one strand's steps see it: the port of `world`, over the store."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any, Final

import orjson

from esb_workers.orchestration.callbacks import Callbacks, Target
from esb_workers.orchestration.failures import CONCURRENCY_LIMIT, VALIDATION_ERROR, Failure, StepFailed
from esb_workers.orchestration.limits import limits_of
from esb_workers.orchestration.lookup import find_workflow
from esb_workers.orchestration.programs import Programs
from esb_workers.orchestration.strand import Strand
from esb_workers.orchestration.world import Child, Ending, ForkView, Messages, OutgoingMessage, Services
from esb_workers.store import control, executions, message_log, starts
from esb_workers.store.engine import Database
from esb_workers.store.ids import new_id
from esb_workers.store.json import dumps
from esb_workers.store.starts import Start

#: The lines of `log` steps.
_log = logging.getLogger("esb.workflow")
_LEVELS: Final = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}


class StrandWorld:
    """Bound to a strand: what it takes and starts is fenced by it."""

    def __init__(
        self,
        database: Database,
        services: Services,
        messages: Messages,
        programs: Programs,
        strand: Strand,
        callbacks: Callbacks | None = None,
    ) -> None:
        self._callbacks = callbacks
        self._database = database
        self._messages = messages
        self._programs = programs
        self._strand = strand
        self.services = services
        #: Whether this strand has made work ready that nobody was told of.
        self.stirred = False
        self.correlation_id = strand.loaded.correlation_id
        self.traceparent = strand.loaded.traceparent

    @property
    def allowed(self) -> Sequence[str] | None:
        """The services that the run's client may use; None: any. A client that is gone may use none."""
        return None if self._strand.loaded.client_id is None else self._strand.loaded.allowed_services or []

    @property
    def revision(self) -> int:
        """Which registrations hold for what is done now."""
        return self._strand.revision

    def publish(self, key: str, message: Mapping[str, Any]) -> str:
        """Send a message into the bus, once under this key; its id. May raise StepFailed."""
        outgoing = OutgoingMessage(
            key=key,
            message_type=message["messageType"],
            source=message["source"],
            payload=message["payload"],
            headers=message["headers"],
            ordering_key=message["orderingKey"],
            correlation_id=self.correlation_id,
            traceparent=self.traceparent,
            client_id=self._strand.loaded.client_id,
            revision=self.revision,
        )
        return self._messages.publish(outgoing)

    def callback(self, path: str, iteration: int) -> Mapping[str, str]:
        """`{token, url}` that answers this visit of a `wait_for_signal`. May raise StepFailed."""
        if self._callbacks is None or not self._callbacks.keys:
            raise StepFailed(Failure(VALIDATION_ERROR, "callbacks need ESB_SECRET_KEYS"))
        target = Target(self._strand.loaded.execution_id, path, iteration)
        return {"token": self._callbacks.token(target), "url": self._callbacks.url(target)}

    def message_status(self, message_id: str) -> str | None:
        """What has become of a message that the run has sent; None: it is no longer kept."""
        with self._database.cursor() as cursor:
            found = message_log.find(cursor, message_id, self._strand.loaded.client_id)
            return None if found is None else message_log.status(cursor, found)

    def signal(self, name: str, visit: int) -> tuple[Any] | None:
        """The payload of the signal that is this visit's, if it has come."""
        with self._database.cursor() as cursor:
            taken = executions.signal_take(cursor, self._strand.key, name, visit)
        return None if taken is None else (orjson.loads(taken[0]) if taken[0] is not None else None,)

    def start(self, workflow: Mapping[str, str], child_id: str, given: Mapping[str, Any], *, wait: bool) -> None:
        """Start another run under this id; nothing happens if that was done before. May raise StepFailed."""
        with self._database.cursor() as cursor:
            found = find_workflow(
                cursor, workflow.get("workflowId"), workflow.get("workflowName"), workflow.get("version")
            )
        if found is None:
            raise StepFailed(Failure(VALIDATION_ERROR, f"there is no workflow {' '.join(workflow.values())}"))
        program = (target := self._programs.get(found)).program
        if program.input_schema is not None and (faults := program.input_schema.faults(dict(given), "input")):
            told = f"the input does not fit inputSchema: {faults[0].path} {faults[0].message}"
            raise StepFailed(Failure(VALIDATION_ERROR, told))
        start = Start(
            id=child_id,
            workflow=found,
            lane=target.lane_id,
            name=target.name,
            correlation=self.correlation_id,
            input=dumps(dict(given)),
            timeout=program.timeout,
            limits=limits_of(target, given, child_id, self.correlation_id),
        )
        with self._database.cursor() as cursor:
            outcome = starts.spawn(cursor, self._strand.key, start, wait=wait)
        if outcome == "gone":
            raise StepFailed(Failure(VALIDATION_ERROR, f"there is no workflow {' '.join(workflow.values())}"))
        if outcome == "limit":
            told = f"as many runs of {target.name} are under way as it allows"
            raise StepFailed(Failure(CONCURRENCY_LIMIT, told, retryable=True))
        self.stirred = True

    def child(self, child_id: str) -> Child:
        """Where a run that was started stands."""
        with self._database.cursor() as cursor:
            found = executions.outcome(cursor, child_id)
        if found is None:
            return Child("failed", error={"class": VALIDATION_ERROR, "message": "the run is gone"})
        status, output, error = found
        return Child(status, orjson.loads(output) if output else None, orjson.loads(error) if error else None)

    def fork(self, path: str, fork: int) -> ForkView:
        """How the children of a fork stand."""
        strand = self._strand
        with self._database.cursor() as cursor:
            scope = executions.scope(cursor, strand.key.job, f"{path}~{fork}")
            if scope is None or not scope.closed:
                return ForkView(False, 0, 0, 0, 0, 0)
            rows = executions.endings(cursor, strand.loaded.execution_id, path, fork)
        endings = [_ending(index, type_, orjson.loads(data)) for index, type_, data in rows]
        return ForkView(True, scope.kids, scope.need, scope.failed, scope.tolerated, scope.open, endings)

    def cull(self, path: str, fork: int) -> None:
        """Stop those children of a fork that still run."""
        with self._database.cursor() as cursor:
            executions.cull(cursor, self._strand.key.job, f"{path}~{fork}")

    def cull_all(self) -> None:
        """Stop every child of this strand, and let go of the run it waits for: upkeep cancels that."""
        with self._database.cursor() as cursor:
            executions.cull(cursor, self._strand.key.job, None)
            control.abandon(cursor, self._strand.key.job)

    def completed(self, step_ids: Sequence[str]) -> list[tuple[str, Any]]:
        """(path, output) of completed visits of these steps that are not undone yet, in order of completion."""
        with self._database.cursor() as cursor:
            rows = executions.completed(cursor, self._strand.loaded.execution_id, step_ids)
        return standing([(kind, path, orjson.loads(data).get("output")) for kind, path, data in rows])

    def log(self, level: str, message: Any, path: str) -> None:
        """Write a line into the bus's log."""
        told = {"execution_id": self._strand.loaded.execution_id, "step": path}
        _log.log(_LEVELS[level], "%s", message, extra=told)

    def new_id(self) -> str:
        """A fresh id."""
        return new_id()


def _ending(index: int, type_: str, data: Mapping[str, Any]) -> Ending:
    return Ending(index, type_.endswith(".completed"), data.get("output"), data.get("error"))


def standing(rows: Sequence[tuple[str, str, Any]]) -> list[tuple[str, Any]]:
    """What is left of completions when each compensation takes away the last one of its path."""
    left: list[tuple[str, Any]] = []
    for kind, path, output in rows:
        if kind == "step.completed":
            left.append((path, output))
            continue
        undone = path.removesuffix(":compensate")
        last = max((at for at, (done, _) in enumerate(left) if done == undone), default=None)
        if last is not None:
            del left[last]
    return left
