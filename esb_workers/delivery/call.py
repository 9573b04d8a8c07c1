"""The second act: one attempt at one instance, with no transaction open."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final, NamedTuple, TypeVar

from esb_workers.delivery import request as requesting
from esb_workers.delivery.prepare import Prepared
from esb_workers.errors import EsbError
from esb_workers.registry.choice import Chooser, Chosen, NotNow
from esb_workers.registry.instances import DEFAULT_TIMEOUT
from esb_workers.registry.limits import Limits
from esb_workers.registry.retries import Answered, Failed, Outcome, nearest
from esb_workers.registry.selection import WORKFLOW
from esb_workers.store.messages import StoredMessage
from esb_workers.transport.adapter import MAX_BODY, ReadyRequest, Response
from esb_workers.transport.errors import CallFailed
from esb_workers.transport.transports import PULL_SCHEME, Transports

T = TypeVar("T")


class Called(NamedTuple):
    """An attempt that was made. `body` is what came back, `error` why nothing did; milliseconds."""

    prepared: Prepared
    chosen: Chosen
    outcome: Outcome
    duration_ms: int
    body: bytes = b""
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
        if (ended := _ended_before(prepared)) is not None:
            return ended
        assert message is not None and payload is not None
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
                        attempt = _Attempt(option, chosen, self._roomy)
                        found = attempt.make(transport.send)
                        called = found if isinstance(found, Called) else attempt.answered(found)
                        self.report(called)
                        return called
                    chosen = NotNow(PULL_SCHEME if chosen.instance.scheme == PULL_SCHEME else NO_TRANSPORT)
            why = why or chosen
            if refusal is not None:
                break  # it is not held, only busy: its turn comes
        assert why is not None
        return NotCalled(prepared, "held", why.reason, why.retry_ms)

    def ready(self, prepared: Prepared) -> Result | Call | None:
        """A delivery whose request can be sent without waiting for its answer; None for what only `call` does.

        That is: a choice of destinations, a workflow, a circuit that is not closed, and what its transport cannot
        send at once.
        """
        if (ended := _ended_before(prepared)) is not None:
            return ended
        if "any" in (prepared.claim.cursor or {}) or prepared.service.startswith(WORKFLOW):
            return None
        instance = self._chooser.choose_closed(prepared.destination)
        if instance is None:
            return None
        make: Callable[..., ReadyRequest | None] | None = getattr(self._transport(instance.scheme), "ready", None)
        if make is None:
            return None
        attempt = _Attempt(prepared, Chosen(instance), self._roomy)
        found = attempt.make(make)
        if isinstance(found, Called):
            self.report(found)
            return found
        return Call(self, attempt, found) if found else None

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

    def report(self, called: Called) -> None:
        """Tell how a call went, for the circuit of its instance."""
        outcome = called.outcome
        if isinstance(outcome, Failed) and not outcome.transient:
            if called.chosen.probe:  # nothing was learnt, and the probe is used up
                self._chooser.report(called.chosen, ok=False)
            return
        self._chooser.report(called.chosen, ok=not outcome.counts_against_circuit)


class Call:
    """A delivery whose request is sent without waiting: see runtime.volley.Call."""

    __slots__ = ("_attempt", "_called", "_caller", "_request", "fileno", "receive")

    def __init__(self, caller: Caller, attempt: _Attempt, request: ReadyRequest) -> None:
        self._caller, self._attempt, self._request = caller, attempt, request
        self._called: Called | None = None
        self.fileno, self.receive = request.call.fileno, request.call.receive

    @property
    def ended(self) -> bool:
        """Whether `result` is there."""
        return self._called is not None or self._request.call.ended

    @property
    def partial(self) -> bool:
        """Whether a part of the answer has come, and it may be whole soon."""
        return self._request.call.partial

    def send(self) -> bool:
        """Send it; False if that could take long."""
        sent = self._attempt.told(self._request.call.send)
        if isinstance(sent, Called):
            self._called = sent
            self._caller.report(sent)
            return True
        return sent

    def result(self) -> Called:
        """What came of it; waits for that unless it has ended."""
        if self._called is None:
            found = self._attempt.told(self._request.result)
            self._called = found if isinstance(found, Called) else self._attempt.answered(found)
            self._caller.report(self._called)
        return self._called


@dataclass(slots=True)
class _Attempt:
    """One request to one instance, and what is made of how that ends."""

    prepared: Prepared
    chosen: Chosen
    roomy: int
    started: float = field(default_factory=time.monotonic)

    def make(self, send: Callable[..., T]) -> T | Called:
        """Build the request and give it to `send`."""
        return self.told(lambda: self._make(send))

    def _make(self, send: Callable[..., T]) -> T:
        prepared, instance, message = self.prepared, self.chosen.instance, self.prepared.message
        assert message is not None
        assert prepared.payload is not None
        request = requesting.build(prepared, message, prepared.payload, instance, time.time())
        timeout = nearest(prepared.plan.timeout, instance.timeout, default=DEFAULT_TIMEOUT)
        return send(request, timeout=timeout / 1000, max_body=self.roomy if self._goes_on else MAX_BODY)

    def told(self, act: Callable[[], T]) -> T | Called:
        """What `act` answers, or in place of an error what came of the attempt."""
        try:
            return act()
        except CallFailed as error:
            return self._failed(Failed(error.error_class, error.transient), error, resent=error.resent)
        except EsbError as error:  # of our own making: an expression in the path that fails for this message
            return self._failed(Failed(type(error).__name__, transient=False), error)

    def answered(self, response: Response) -> Called:
        """What came of it, after an answer."""
        return Called(
            prepared=self.prepared,
            chosen=self.chosen,
            outcome=Answered(response.status_code, response.headers.get("Retry-After")),
            duration_ms=round(response.elapsed.total_seconds() * 1000),
            body=response.content,
            resent=getattr(response.raw, "resent", False),
            truncated=self._goes_on and getattr(response.raw, "truncated", False),
        )

    @property
    def _goes_on(self) -> bool:
        message = self.prepared.message
        replies = message is not None and message.reply_to is not None
        return replies or bool((self.prepared.claim.cursor or {}).get("slip"))

    def _failed(self, outcome: Failed, error: EsbError, *, resent: bool = False) -> Called:
        told = f"{outcome.error_class}: {error.detail}"
        return Called(self.prepared, self.chosen, outcome, _since(self.started), error=told, resent=resent)


def _ended_before(prepared: Prepared) -> NotCalled | None:
    """How a delivery has ended before any attempt at it."""
    message = prepared.message
    if failed := (prepared.claim.cursor or {}).get("failed"):  # already when it was routed
        return NotCalled(prepared, "dead", failed["class"])
    if message is None or prepared.payload is None:
        return NotCalled(prepared, "dead", "PayloadGone")
    if message.expires_at is not None and message.expires_at <= datetime.now(UTC):
        return NotCalled(prepared, "expired", "expired")
    return None


def _since(started: float) -> int:
    return round((time.monotonic() - started) * 1000)
