"""What step types may do to the world, and what a strand needs of it: ports, filled in by `tasks`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from esb_workers.orchestration.failures import Failure


@dataclass(frozen=True, slots=True)
class ServiceRequest:
    """A call of a service by name, as a step wants it. `path` None: the service's own."""

    service: str
    path: str
    http_method: str
    body: bytes
    headers: Mapping[str, str]
    query: Mapping[str, str]
    idempotency_key: str
    correlation_id: str
    traceparent: str | None
    timeout_ms: int | None
    allowed: Sequence[str] | None  # the services its client may use; None: any
    revision: int  # of the registrations, at least


@dataclass(frozen=True, slots=True)
class Answer:
    """What a service answered, 2xx. `value` is its JSON, or its text."""

    status: int
    value: Any


@dataclass(frozen=True, slots=True)
class Held:
    """Nobody may be called now: maintenance, or every circuit is open. Look again in `retry_ms`."""

    reason: str
    retry_ms: int


ServiceReply = Answer | Held | Failure


class Services(Protocol):
    """The services behind the bus."""

    def call(self, request: ServiceRequest) -> ServiceReply:
        """One attempt at one instance. Never raises for what the outside world does."""

    def longest(self, service: str, revision: int) -> int:
        """The longest an attempt may take that names no timeout, milliseconds; 0: nobody bears the name."""


class Messages(Protocol):
    """The message bus."""

    def publish(self, message: OutgoingMessage) -> str:
        """Accept a message, or find that it was accepted before; its id. May raise StepFailed."""


@dataclass(frozen=True, slots=True)
class OutgoingMessage:
    """A message as a step makes it. `key` is the step's idempotency key; it becomes the message's id."""

    key: str
    message_type: str
    source: str
    payload: Any
    headers: Mapping[str, str]
    ordering_key: str | None
    correlation_id: str
    traceparent: str | None
    client_id: str | None
    revision: int


@dataclass(frozen=True, slots=True)
class Child:
    """A run that another run started."""

    status: str
    output: Any = None
    error: Mapping[str, Any] | None = None


class World(Protocol):
    """What a step sees of the world, bound to its own strand."""

    correlation_id: str
    traceparent: str | None

    @property
    def services(self) -> Services:
        """The services behind the bus."""

    @property
    def allowed(self) -> Sequence[str] | None:
        """The services that the run's client may use; None: any."""

    @property
    def revision(self) -> int:
        """Which registrations hold for what is done now."""

    def publish(self, key: str, message: Mapping[str, Any]) -> str:
        """Send a message into the bus, once under this key; its id. May raise StepFailed."""

    def callback(self, path: str, iteration: int) -> Mapping[str, str]:
        """`{token, url}` that answers this visit of a `wait_for_signal`. May raise StepFailed."""

    def message_status(self, message_id: str) -> str | None:
        """What has become of a message that the run has sent; None: it is no longer kept."""

    def signal(self, name: str, visit: int) -> tuple[Any] | None:
        """The payload of the signal that is this visit's, if it has come."""

    def start(self, workflow: Mapping[str, str], child_id: str, given: Mapping[str, Any], *, wait: bool) -> None:
        """Start another run under this id; nothing happens if that was done before. May raise StepFailed."""

    def child(self, child_id: str) -> Child:
        """Where a run that was started stands."""

    def fork(self, path: str, fork: int) -> ForkView:
        """How the children of a fork stand."""

    def cull(self, path: str, fork: int) -> None:
        """Stop those children of a fork that still run."""

    def log(self, level: str, message: Any, path: str) -> None:
        """Write a line into the bus's log: `debug`, `info`, `warning` or `error`."""

    def new_id(self) -> str:
        """A fresh id."""


class StrandPort(World, Protocol):
    """What the engine itself asks of the world around a strand, beside what its steps ask."""

    stirred: bool  # whether this strand has made work ready that nobody was told of

    def cull_all(self) -> None:
        """Stop every child of this strand."""

    def completed(self, step_ids: Sequence[str]) -> list[tuple[str, Any]]:
        """(path, output) of every completed visit of these steps in the run, in order of completion."""


@dataclass(frozen=True, slots=True)
class Ending:
    """How one child of a fork ended."""

    index: int
    ok: bool
    output: Any = None
    error: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class ForkView:
    """A fork as its parent finds it."""

    closed: bool
    kids: int
    need: int
    failed: int
    tolerated: int
    open: int
    endings: list[Ending] = field(default_factory=list)
