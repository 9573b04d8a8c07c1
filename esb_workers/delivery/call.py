"""The second act: one attempt at one instance, with no transaction open."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final, NamedTuple

from esb_workers.delivery import request as requesting
from esb_workers.delivery.prepare import Prepared
from esb_workers.errors import EsbError
from esb_workers.registry.choice import Chooser, Chosen, NotNow
from esb_workers.registry.instances import DEFAULT_TIMEOUT
from esb_workers.registry.limits import Limits
from esb_workers.registry.retries import Answered, Failed, Outcome, nearest
from esb_workers.registry.selection import WORKFLOW
from esb_workers.store.messages import StoredMessage
from esb_workers.transport.adapter import MAX_BODY, Response
from esb_workers.transport.errors import CallFailed
from esb_workers.transport.transports import PULL_SCHEME, Transport, Transports


@dataclass(frozen=True, slots=True)
class Called:
    """An attempt that was made. `body` is what came back, `error` why nothing did; milliseconds."""

    prepared: Prepared
    chosen: Chosen
    outcome: Outcome
    duration_ms: int
    body: bytes = b""
    content_type: str | None = None
    error: str | None = None
    resent: bool = False  # the request went out twice: its kept connection closed upon it
    truncated: bool = False  # the body was to go on to somebody, and is only the beginning of what came


@dataclass(frozen=True, slots=True)
class NotCalled:
    """An attempt that was not made: `held` for now, or ended as `expired` or `dead`."""

    prepared: Prepared
    ending: str
    reason: str
    retry_ms: int = 0


@dataclass(frozen=True, slots=True)
class Begun:
    """An attempt to start a run of a workflow: `execution_id`, or why there is none."""

    prepared: Prepared
    outcome: Outcome
    duration_ms: int
    execution_id: str | None = None
    error: str | None = None


Result = Called | NotCalled | Begun


class WorkflowStart(NamedTuple):
    """A run that a delivery starts, once however often it is tried. `payload` is JSON text."""

    delivery_id: str
    workflow: str
    version: str | None
    payload: str
    message: StoredMessage


class WorkflowStarted(NamedTuple):
    """The run; or the class of the error, whether another try may end differently, and more words."""

    execution_id: str | None
    error_class: str = ""
    transient: bool = False
    detail: str = ""


#: Filled in by whoever makes the engine: this package does not know workflows. None: there is no such workflow now.
Starter = Callable[[WorkflowStart], WorkflowStarted | None]

#: A delivery whose workflow is not there, or cannot be started here, is looked at again in this time, ms.
NO_WORKFLOW, NO_WORKFLOW_PAUSE = "no_workflow", 2000

#: Why a delivery is held whose instance's scheme is a plug-in's that is not installed here.
NO_TRANSPORT: Final = "no_transport"


class Caller:
    """Makes attempts. One a process; safe for threads."""

    def __init__(
        self,
        chooser: Chooser,
        limits: Limits,
        transports: Transports,
        roomy: int = MAX_BODY,
        starter: Starter | None = None,
    ) -> None:
        """`roomy`: how much is read of an answer that is not only kept but goes on, bytes."""
        self._starter = starter
        self._chooser = chooser
        self._limits = limits
        self._transport = transports.get
        self._roomy = roomy

    def call(self, prepared: Prepared) -> Result:
        """Try a delivery once. Never raises for what message, registration or the outside world is like."""
        message, payload = prepared.message, prepared.payload
        if failed := (prepared.claim.cursor or {}).get("failed"):  # already when it was routed
            return NotCalled(prepared, "dead", failed["class"])
        if message is None or payload is None:
            return NotCalled(prepared, "dead", "PayloadGone")
        if message.expires_at is not None and message.expires_at <= datetime.now(UTC):
            return NotCalled(prepared, "expired", "expired")
        why: NotNow | None = None
        for option in prepared.options:
            if option.service.startswith(WORKFLOW):
                begun = self._start(option, message, option.payload or payload)
                if isinstance(begun, Begun):
                    return begun
                why = why or begun
                continue
            with self._place(option) as refusal:
                chosen = refusal or self._chooser.choose(option.destination, option.plan.timeout)
                if isinstance(chosen, Chosen):
                    transport = self._transport(chosen.instance.scheme)
                    if transport is not None:
                        called = self._attempt(option, message, option.payload or payload, chosen, transport)
                        self._report(called)
                        return called
                    chosen = NotNow(PULL_SCHEME if chosen.instance.scheme == PULL_SCHEME else NO_TRANSPORT)
            why = why or chosen
            if refusal is not None:
                break  # it is not held, only busy: its turn comes
        assert why is not None
        return NotCalled(prepared, "held", why.reason, why.retry_ms)

    def _start(self, prepared: Prepared, message: StoredMessage, payload: str) -> Begun | NotNow:
        """Start a run. Raises Unavailable."""
        name, _, version = prepared.service.removeprefix(WORKFLOW).partition("@")
        begun = time.monotonic()
        start = WorkflowStart(prepared.claim.id, name, version or None, payload, message)
        started = self._starter(start) if self._starter is not None else None
        if started is None:
            return NotNow(NO_WORKFLOW, NO_WORKFLOW_PAUSE)
        if started.execution_id is not None:
            return Begun(prepared, Answered(202), _since(begun), started.execution_id)
        outcome = Failed(started.error_class, started.transient)
        return Begun(prepared, outcome, _since(begun), error=f"{started.error_class}: {started.detail}")

    def _place(self, option: Prepared) -> AbstractContextManager[NotNow | None]:
        """A place at the option's service; what stands in the service's own lane has got one by its claim."""
        if "any" not in (option.claim.cursor or {}):
            return nullcontext()
        return self._limits.place(option.destination.name, option.plan.timeout)

    def _attempt(
        self, prepared: Prepared, message: StoredMessage, payload: str, chosen: Chosen, transport: Transport
    ) -> Called:
        started = time.monotonic()
        try:
            request = requesting.build(prepared, message, payload, chosen.instance, time.time())
            timeout = nearest(prepared.plan.timeout, chosen.instance.timeout, default=DEFAULT_TIMEOUT)
            goes_on = message.reply_to is not None or bool((prepared.claim.cursor or {}).get("slip"))
            most = self._roomy if goes_on else MAX_BODY
            response = transport.send(request, timeout=timeout / 1000, max_body=most)
        except CallFailed as error:
            outcome = Failed(error.error_class, error.transient)
            told = f"{error.error_class}: {error.detail}"
            return Called(prepared, chosen, outcome, _since(started), error=told, resent=error.resent)
        except EsbError as error:  # of our own making: an expression in the path that fails for this message
            outcome = Failed(type(error).__name__, transient=False)
            return Called(prepared, chosen, outcome, _since(started), error=f"{type(error).__name__}: {error.detail}")
        return _answered(prepared, chosen, response, goes_on=goes_on)

    def _report(self, called: Called) -> None:
        outcome = called.outcome
        if isinstance(outcome, Failed) and not outcome.transient:
            if called.chosen.probe:  # nothing was learnt, and the probe is used up
                self._chooser.report(called.chosen, ok=False)
            return
        self._chooser.report(called.chosen, ok=not outcome.counts_against_circuit)


def _answered(prepared: Prepared, chosen: Chosen, response: Response, *, goes_on: bool) -> Called:
    return Called(
        prepared=prepared,
        chosen=chosen,
        outcome=Answered(response.status_code, response.headers.get("Retry-After")),
        duration_ms=round(response.elapsed.total_seconds() * 1000),
        body=response.content,
        content_type=response.headers.get("Content-Type"),
        resent=getattr(response.raw, "resent", False),
        truncated=goes_on and getattr(response.raw, "truncated", False),
    )


def _since(started: float) -> int:
    return round((time.monotonic() - started) * 1000)
