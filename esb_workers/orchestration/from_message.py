"""Runs that messages start: a route's destination may be a workflow."""

from __future__ import annotations

from typing import NamedTuple

import orjson

from esb_workers.errors import Conflict, Invalid, NotFound
from esb_workers.orchestration.failures import CONCURRENCY_LIMIT, VALIDATION_ERROR
from esb_workers.orchestration.start import NewExecution, Orchestration
from esb_workers.runtime.ringer import Ringer
from esb_workers.store.engine import Database


class Asked(NamedTuple):
    """A run that a delivery asks for. `payload` is JSON text."""

    delivery_id: str
    workflow: str
    version: str | None
    payload: str
    client_id: str | None
    correlation_id: str
    traceparent: str | None
    priority: int


class Told(NamedTuple):
    """The run; or the class of the error, whether another try may end differently, and more words."""

    execution_id: str | None
    error_class: str = ""
    transient: bool = False
    detail: str = ""


class MessageStarts:
    """Starts runs for deliveries, one for each however often it is tried. Safe for threads."""

    def __init__(self, database: Database, ringer: Ringer) -> None:
        self._front = Orchestration(database, ringer)

    def start(self, asked: Asked) -> Told | None:
        """Start the run, or find that it was started. None: there is no such workflow now. Raises Unavailable."""
        payload = orjson.loads(asked.payload)
        new = NewExecution(
            input=payload if isinstance(payload, dict) else {"payload": payload},
            correlation_id=asked.correlation_id,
            workflow_name=asked.workflow,
            version=asked.version,
            client_id=asked.client_id,
            traceparent=asked.traceparent,
            priority=asked.priority,
            delivery_id=asked.delivery_id,
        )
        try:
            started = self._front.start(new, self._front.find(new))
        except NotFound:
            return None
        except Invalid as error:
            return Told(None, VALIDATION_ERROR, transient=False, detail=error.detail)
        except Conflict as error:
            return Told(None, CONCURRENCY_LIMIT, transient=True, detail=error.detail)
        if started.outcome == "ok":
            self._front.started()
        return Told(started.id)
