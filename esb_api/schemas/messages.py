"""Messages: as they are sent, and as they are read back."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, RootModel

from esb_api.params import PageQuery
from esb_api.schemas.base import Answer, Body
from esb_api.schemas.problem import Problem
from esb_api.schemas.types import COMMAS, NAME_PATTERN, Moment, Visible, Words
from esb_workers.expressions.topics import MAX_LENGTH, is_message_type
from esb_workers.registry.versions import parse_range

MessageStatus = Literal[
    "accepted",
    "scheduled",
    "routed",
    "delivered",
    "partially_delivered",
    "failed",
    "unroutable",
    "expired",
    "cancelled",
]
DeliveryStatus = Literal[
    "pending", "in_flight", "delivered", "retrying", "dead", "held", "forbidden", "expired", "cancelled"
]

_TYPE = r"^[A-Za-z0-9_-]{1,64}(\.[A-Za-z0-9_-]{1,64})*$"


def _check_type(text: str) -> str:
    if not is_message_type(text):
        raise ValueError("must be words of letters, digits, `_` and `-` (at most 64 each), parted by dots")
    return text


#: Its length is looked at with the rest of it.
MessageType = Annotated[
    str, AfterValidator(_check_type), Field(json_schema_extra={"pattern": _TYPE, "maxLength": MAX_LENGTH})
]


def _check_service(text: str) -> str:
    name, at, wanted = text.partition("@")
    if not re.fullmatch(NAME_PATTERN, name):
        raise ValueError("must be the name of a service, `name` or `name@RANGE`")
    if at:
        parse_range(wanted)
    return text


ServiceName = Annotated[str, AfterValidator(_check_service), Field(max_length=255)]


class MessageBody(Body):
    """A message to be routed."""

    source: Annotated[str, Field(min_length=1, max_length=1024, description="Who says it.")]
    message_type: MessageType
    payload: Annotated[Any, Field(description="Any JSON; goes out equal in value.")]
    headers: Annotated[dict[str, str], Field(description="Go out as HTTP headers; routes can look at them.")] = {}
    correlation_id: Annotated[Visible | None, Field(description="Default: `X-Correlation-ID`, else a new UUID.")] = None
    message_id: Annotated[
        Visible | None, Field(description="The sender's own id. Again with the same body: accepted once.")
    ] = None
    ordering_key: Annotated[
        str | None, Field(min_length=1, max_length=255, description="Messages of one key go out in order.")
    ] = None
    priority: Annotated[int, Field(ge=0, le=9, description="9 goes first.")] = 5
    deliver_at: Annotated[Moment | None, Field(description="Not before; past means now.")] = None
    expires_at: Annotated[Moment | None, Field(description="Not after; must lie ahead.")] = None
    reply_to: Annotated[
        ServiceName | None, Field(description="Gets the first 2xx answer's body, as a message `{messageType}.reply`.")
    ] = None


class BatchBody(Body):
    """Messages that are accepted in one request, each on its own merits."""

    messages: Annotated[list[MessageBody], Field(description="At most 1000.")]


class BatchShape(Body):
    """The outside of a batch, whose messages are looked at one by one."""

    messages: list[Any]


class AcceptedAnswer(Answer):
    """The message is stored: it will be routed whatever happens to the processes."""

    id: Annotated[str, Field(description="The bus's id.")]
    message_id: Annotated[str, Field(description="The sender's own id if it gave one, else the bus's.")]
    correlation_id: str
    status: Literal["accepted"] = "accepted"


class ReplayedAnswer(AcceptedAnswer):
    """A new message with the content of another."""

    replay_of: str


class BatchItem(Answer):
    """What became of one message of a batch: `messageId`, or `error`."""

    index: int
    id: str | None = None
    message_id: str | None = None
    correlation_id: str | None = None
    error: Problem | None = None


class BatchAnswer(Answer):
    """What became of each message of a batch, in its order."""

    items: list[BatchItem]


class EventsAnswer(RootModel[AcceptedAnswer | BatchAnswer]):
    """That of one event, or of a batch."""


# --- reading ---------------------------------------------------------------------------------------------


class AttemptAnswer(Answer):
    """One try of a delivery."""

    number: int
    started_at: Moment | None
    duration_ms: int | None
    status_code: int | None
    response_body: str | None
    error: str | None
    outcome: Annotated[
        Literal["ok", "failed", "unknown", "superseded"],
        Field(description="`unknown`: its worker was lost under way; the call may have been made."),
    ]


class DeliveryAnswer(Answer):
    """One destination's share of a message."""

    id: str
    message_id: str
    route: Annotated[str | None, Field(description="The route's name.")]
    route_id: str | None
    destination: str
    status: DeliveryStatus
    reason: Annotated[str | None, Field(description="Why it is held, or why it ended as it did.")]
    error_class: Annotated[str | None, Field(description="Of a dead one: `Timeout`, `HttpStatus.500` …")]
    service_id: Annotated[str | None, Field(description="The instance of the last attempt.")]
    attempts: list[AttemptAnswer]
    next_attempt_at: Moment | None
    collected_into: Annotated[str | None, Field(description="The message that it has become part of.")] = None
    created_at: Moment
    finished_at: Moment | None


class TimelineEntry(Answer):
    """Something that happened to a message."""

    seq: int
    at: Moment
    type: str
    delivery_id: str | None = None
    destination: str | None = None
    detail: Annotated[dict[str, Any] | None, Field(description="What there is to say about it.")] = None


class LoggedMessage(Answer):
    """A message with its deliveries."""

    id: str
    message_id: str
    correlation_id: str
    status: MessageStatus
    reason: Annotated[str | None, Field(description="Why it ended without a delivery.")]
    source: str
    message_type: str
    payload: Annotated[Any, Field(description="Null once redacted.")]
    headers: dict[str, str]
    ordering_key: str | None
    priority: int
    deliver_at: Moment | None
    expires_at: Moment | None
    reply_to: str | None
    client_id: Annotated[str | None, Field(description="Null: the operator.")]
    replay_of: str | None
    created_at: Moment
    updated_at: Moment
    redacted_at: Moment | None
    deliveries: list[DeliveryAnswer]


class MessageAnswer(LoggedMessage):
    """A message with its deliveries and all that happened to it, oldest first."""

    timeline: list[TimelineEntry]


class LogPage(Answer):
    """Messages, newest first."""

    items: list[LoggedMessage]
    next_cursor: str | None


class LogQuery(PageQuery):
    """Filters of the log. Lists are comma lists."""

    correlation_id: Words | None = None
    message_id: Annotated[Words | None, Field(description="The bus's ids or the senders' own.")] = None
    message_type: Words | None = None
    source: Words | None = None
    status: Annotated[list[MessageStatus], COMMAS] | None = None
    destination: Words | None = None
    client_id: Words | None = None
    from_: Annotated[Moment | None, Field(alias="from", description="Accepted then or later.")] = None
    to: Annotated[Moment | None, Field(description="Accepted before.")] = None
