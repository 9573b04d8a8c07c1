"""Dead letters, and their replay."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from esb_api.params import PageQuery
from esb_api.schemas.base import Answer, Body
from esb_api.schemas.messages import AttemptAnswer, DeliveryAnswer
from esb_api.schemas.types import Moment, Words

#: One word, or several of which one must fit.
OneOrMore = str | list[str]


class DeadLetterQuery(PageQuery):
    """Filters of dead letters. Lists are comma lists."""

    ids: Words | None = None
    message_id: Words | None = None
    destination: Words | None = None
    route: Annotated[Words | None, Field(description="Names or ids.")] = None
    error_class: Words | None = None
    client_id: Words | None = None
    from_: Annotated[Moment | None, Field(alias="from", description="Dead then or later.")] = None
    to: Annotated[Moment | None, Field(description="Dead before.")] = None


class DeadLetterFilterBody(Body):
    """Which dead letters; at least one field must be given."""

    ids: Annotated[list[str] | None, Field(max_length=10_000, description="Ids of deliveries.")] = None
    message_id: OneOrMore | None = None
    destination: OneOrMore | None = None
    route: Annotated[OneOrMore | None, Field(description="Name or id.")] = None
    error_class: OneOrMore | None = None
    client_id: OneOrMore | None = None
    from_: Annotated[Moment | None, Field(alias="from", description="Dead then or later.")] = None
    to: Annotated[Moment | None, Field(description="Dead before.")] = None


class ReplayBody(Body):
    """A replay of dead letters."""

    filter: DeadLetterFilterBody
    rate_per_second: Annotated[float | None, Field(gt=0, le=100_000, description="Without it, as fast as can be.")] = (
        None
    )
    dry_run: Annotated[bool, Field(description="Only say what it would take.")] = False


class DeadLetterAnswer(Answer):
    """A delivery that was given up."""

    id: Annotated[str, Field(description="The delivery's id.")]
    delivery_id: str
    message_id: str
    message_type: str
    source: str
    correlation_id: str
    client_id: str | None
    destination: str
    route: str | None
    route_id: str | None
    error_class: str | None
    attempts: int
    last_attempt: AttemptAnswer | None
    redacted: Annotated[bool, Field(description="Then there is nothing left to replay.")]
    created_at: Annotated[Moment, Field(description="When it was given up.")]


class OriginalAnswer(Answer):
    """A message as it was accepted."""

    payload: Annotated[Any, Field(description="Null once redacted.")]
    headers: dict[str, str]


class FormAnswer(Answer):
    """What transformations made of it for one destination."""

    destination: str
    payload: Any
    headers: dict[str, str]


class DeadLetterDetail(DeadLetterAnswer):
    """A dead letter with all there is to decide by: what came in, what was sent, and what each attempt met."""

    original: OriginalAnswer
    forms: Annotated[list[FormAnswer], Field(description="Empty: it was sent as it came in, or is redacted.")]
    delivery: Annotated[DeliveryAnswer, Field(description="With all its attempts, the earlier rounds included.")]


class DeadLetterPage(Answer):
    """Dead letters, newest first."""

    items: list[DeadLetterAnswer]
    next_cursor: str | None


class DryReplayAnswer(Answer):
    """What a replay would take."""

    matched: int
    sample: list[DeadLetterAnswer]


class StartedReplayAnswer(Answer):
    """A replay has begun."""

    replay_id: str
    matched: int


class ReplayAnswer(Answer):
    """How far a replay has come."""

    id: str
    status: Annotated[
        Literal["running", "completed", "cancelled"], Field(description="`completed`: all are sent and have ended.")
    ]
    filter: Annotated[dict[str, Any], Field(description="Which dead letters it took.")]
    matched: int
    sent: int
    delivered: int
    failed: int
    rate_per_second: float | None
    created_at: Moment
    finished_at: Moment | None


class ReplayPage(Answer):
    """Replays, newest first."""

    items: list[ReplayAnswer]
    next_cursor: str | None
