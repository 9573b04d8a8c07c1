"""Deliveries that receivers fetch: leases, and what became of them."""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

from pydantic import Field

from esb_api.schemas.base import Answer, Body
from esb_api.schemas.types import Moment, checked, milliseconds
from esb_workers.store.pulls import Lease

_DAY: Final = 86_400_000
_LONGEST_LEASE: Final = 43_200_000


def lease_of(token: str) -> Lease:
    """The lease that a token stands for. Raises ValueError."""
    id_, _, attempt = token.rpartition(":")
    hexes = id_.replace("-", "")
    if len(id_) != 36 or len(hexes) != 32 or not attempt.isdecimal() or not attempt.isascii() or len(attempt) > 9:
        raise ValueError("is not a token that a lease has given")
    int(hexes, 16)
    return Lease(id_.lower(), int(attempt))


def token_of(lease: Lease) -> str:
    """The token of a lease."""
    return f"{lease.id}:{lease.attempt}"


Token = Annotated[str, checked(lease_of), Field(max_length=50, description="`token` of the lease.")]
LeaseMs = Annotated[int, milliseconds(1000, _LONGEST_LEASE, "How long the lease holds, milliseconds.")]


class PullBody(Body):
    """How much is wanted, and for how long."""

    limit: Annotated[int, Field(ge=1, le=100, description="Deliveries at most.")] = 10
    lease_ms: LeaseMs = 30_000
    wait: Annotated[int, milliseconds(0, 30_000, "How long to wait while there is nothing, milliseconds.")] = 0


class AckItem(Body):
    """A delivery that was taken."""

    token: Token
    result: Annotated[Any, Field(description="Kept with the attempt; goes to the message's `replyTo`.")] = None


class AckBody(Body):
    """Deliveries that were taken."""

    items: Annotated[list[AckItem], Field(min_length=1, max_length=100)]


class NackItem(Body):
    """A delivery that was not taken."""

    token: Token
    reason: Annotated[
        Annotated[str, Field(min_length=1, max_length=1000, pattern=r"^[^\x00]*$")] | None,
        Field(description="Recorded as the attempt's error."),
    ] = None
    delay: Annotated[
        int | None, milliseconds(0, _DAY, "Tried again after this, milliseconds; default: as the retry policy says.")
    ] = None
    dead: Annotated[bool, Field(description="Not to be tried again: a dead letter.")] = False


class NackBody(Body):
    """Deliveries that were not taken."""

    items: Annotated[list[NackItem], Field(min_length=1, max_length=100)]


class ExtendBody(Body):
    """Leases that are to hold longer."""

    tokens: Annotated[list[Token], Field(min_length=1, max_length=100)]
    lease_ms: LeaseMs = 30_000


class LeasedAnswer(Answer):
    """A delivery that was handed out."""

    delivery_id: Annotated[str, Field(description="The same at every attempt: a repeat is known by it.")]
    token: Annotated[str, Field(description="Of this attempt: what `ack`, `nack` and `extend` name.")]
    attempt: int
    leased_until: Moment
    message_id: str
    source: str
    message_type: str
    correlation_id: str
    traceparent: str
    created_at: Moment
    ordering_key: str | None
    headers: dict[str, str]
    payload: Any


class LeasesAnswer(Answer):
    """Deliveries, in their order."""

    items: list[LeasedAnswer]


class SettledItem(Answer):
    """What became of one lease."""

    token: str
    outcome: Annotated[
        Literal["delivered", "retrying", "dead", "blocked", "extended", "superseded"],
        Field(description="`superseded`: the lease was over, and what was said of it is dropped."),
    ]


class SettledAnswer(Answer):
    """What became of each lease, in the order asked."""

    items: list[SettledItem]


class PullFiguresAnswer(Answer):
    """What lies there for a service that pulls."""

    service: str
    ready: int
    leased: int
    later: Annotated[int, Field(description="Waiting for their time, or behind another of their key.")]
    oldest_ready_age_ms: int
