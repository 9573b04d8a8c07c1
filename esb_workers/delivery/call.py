"""The second act: one attempt at one instance, with no transaction open."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final, Generic, NamedTuple, TypeVar

from esb_workers.delivery import request as requesting
from esb_workers.delivery.prepare import Prepared
from esb_workers.errors import EsbError
from esb_workers.registry.choice import Chooser, Chosen, NotNow
from esb_workers.registry.instances import DEFAULT_TIMEOUT, Instance
from esb_workers.registry.limits import Limits
from esb_workers.registry.retries import Answered, Failed, Outcome, nearest
from esb_workers.registry.selection import WORKFLOW
from esb_workers.store.messages import StoredMessage
from esb_workers.transport.adapter import MAX_BODY, reply_of
from esb_workers.transport.errors import CallFailed
from esb_workers.transport.http import Call as Sending
from esb_workers.transport.http import Response as Reply
from esb_workers.transport.transports import PULL_SCHEME, Transport, Transports
from esb_workers.transport.web import WebTransport

T = TypeVar("T")
R = TypeVar("R")


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
                        found = attempt.told(attempt.send, transport)
                        called = found if isinstance(found, Called) else attempt.answered(found)
                        self.report(called)
                        return called
                    chosen = NotNow(PULL_SCHEME if chosen.instance.scheme == PULL_SCHEME else NO_TRANSPORT)
            why = why or chosen
            if refusal is not None:
                break  # it is not held, only busy: its turn comes
        assert why is not None
        return NotCalled(prepared, "held", why.reason, why.retry_ms)

    def ready(self, prepared: Prepared, conclude: Callable[[Result], R]) -> R | Call[R] | None:
        """A delivery whose request can be sent without waiting for its answer; None for what only `call` does.

        That is: a choice of destinations, a workflow, a circuit that is not closed, and what its transport cannot
        send at once. `conclude` makes of the result what is answered, here or by the call.
        """
        if (ended := _ended_before(prepared)) is not None:
            return conclude(ended)
        cursor = prepared.claim.cursor
        if (cursor and "any" in cursor) or prepared.service.startswith(WORKFLOW):
            return None
        instance = self._chooser.choose_closed(prepared.destination)
        if instance is None:
            return None
        transport = self._transport(instance.scheme)
        if not isinstance(transport, WebTransport):
            return None
        attempt = _Attempt(prepared, Chosen(instance), self._roomy)
        found = attempt.told(attempt.ready, transport)
        if isinstance(found, Called):
            self.report(found)
            return conclude(found)
        return Call(self, attempt, found, conclude) if found else None

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


class Call(Generic[R]):
    """A delivery whose request is sent without waiting: see runtime.volley.Call."""

    __slots__ = ("_attempt", "_called", "_caller", "_conclude", "_result", "_sending", "fileno", "receive")

    def __init__(self, caller: Caller, attempt: _Attempt, sending: Sending, conclude: Callable[[Result], R]) -> None:
        self._caller, self._attempt, self._sending, self._conclude = caller, attempt, sending, conclude
        self._called: Called | None = None
        self._result: R | None = None
        self.fileno, self.receive = sending.fileno, sending.receive

    @property
    def ended(self) -> bool:
        """Whether `result` is there."""
        return self._sending.answer is not None or self._called is not None

    @property
    def partial(self) -> bool:
        """Whether a part of the answer has come, and it may be whole soon."""
        return self._sending.partial

    def send(self) -> bool:
        """Send it; False if that could take long."""
        sent = self._attempt.told(self._sending.send)
        if isinstance(sent, Called):
            self._ended_as(sent)
            return True
        return sent

    def result(self) -> R:
        """What came of it; waits for that unless it has ended."""
        if self._result is None:
            if (called := self._called) is None:
                found = self._attempt.told(self._sending.result)
                called = self._ended_as(found if isinstance(found, Called) else self._attempt.answered(found))
            self._result = self._conclude(called)
        return self._result

    def _ended_as(self, called: Called) -> Called:
        self._called = called
        self._caller.report(called)
        return called


@dataclass(slots=True)
class _Attempt:
    """One request to one instance, and what is made of how that ends."""

    prepared: Prepared
    chosen: Chosen
    roomy: int
    started: float = field(default_factory=time.monotonic)

    def send(self, transport: Transport) -> Reply:
        """Build the request, send it and wait for the answer."""
        request = requesting.build(*self._of_request())
        return reply_of(transport.send(request, timeout=self._timeout, max_body=self._max_body))

    def ready(self, transport: WebTransport) -> Sending | None:
        """Build the request, to be sent without waiting, if it can be."""
        asked, timeout, max_body = self._of_request(), self._timeout, self._max_body
        letter = requesting.letter(*asked)
        if letter is not None:
            return transport.post(letter, timeout=timeout, max_body=max_body)
        return transport.ready(requesting.build(*asked), timeout=timeout, max_body=max_body)

    def _of_request(self) -> tuple[Prepared, StoredMessage, str, Instance, float]:
        prepared, message = self.prepared, self.prepared.message
        assert message is not None
        assert prepared.payload is not None
        return prepared, message, prepared.payload, self.chosen.instance, time.time()

    def told(self, act: Callable[..., T], *arguments: object) -> T | Called:
        """What `act` answers, or in place of an error what came of the attempt."""
        try:
            return act(*arguments)
        except CallFailed as error:
            return self._failed(Failed(error.error_class, error.transient), error, resent=error.resent)
        except EsbError as error:  # of our own making: an expression in the path that fails for this message
            return self._failed(Failed(type(error).__name__, transient=False), error)

    def answered(self, reply: Reply) -> Called:
        """What came of it, after an answer."""
        status, truncated = reply.status, reply.truncated and self._goes_on
        # Where all is well nobody asks when to come again.
        outcome = _GOOD[status] if status in _GOOD else Answered(status, reply.headers.get("Retry-After"))
        return Called(self.prepared, self.chosen, outcome, reply.duration_ms, reply.body, None, reply.resent, truncated)

    @property
    def _timeout(self) -> float:
        """Seconds."""
        return nearest(self.prepared.plan.timeout, self.chosen.instance.timeout, default=DEFAULT_TIMEOUT) / 1000

    @property
    def _max_body(self) -> int:
        return self.roomy if self._goes_on else MAX_BODY

    @property
    def _goes_on(self) -> bool:
        message, cursor = self.prepared.message, self.prepared.claim.cursor
        return (message is not None and message.reply_to is not None) or bool(cursor and cursor.get("slip"))

    def _failed(self, outcome: Failed, error: EsbError, *, resent: bool = False) -> Called:
        told = f"{outcome.error_class}: {error.detail}"
        return Called(self.prepared, self.chosen, outcome, _since(self.started), error=told, resent=resent)


#: Answers after which nothing is left to do.
_GOOD: Final = {status: Answered(status) for status in range(200, 300)}


def _ended_before(prepared: Prepared) -> NotCalled | None:
    """How a delivery has ended before any attempt at it."""
    message, cursor = prepared.message, prepared.claim.cursor
    if cursor and (failed := cursor.get("failed")):  # already when it was routed
        return NotCalled(prepared, "dead", failed["class"])
    if message is None or prepared.payload is None:
        return NotCalled(prepared, "dead", "PayloadGone")
    if message.expires_at is not None and message.expires_at <= datetime.now(UTC):
        return NotCalled(prepared, "expired", "expired")
    return None


def _since(started: float) -> int:
    return round((time.monotonic() - started) * 1000)
