"""Routes: what is taken, in which form, where to; and dry runs."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from esb_api.params import PageQuery
from esb_api.schemas.base import Answer, Body
from esb_api.schemas.messages import MessageType
from esb_api.schemas.retries import RetryPolicyBody
from esb_api.schemas.types import COMMAS, Moment, Name, Visible, Words, milliseconds
from esb_workers.routing.options import DEFAULT_GAP, DEFAULT_WAIT, MAX_PARTS, MAX_WAIT
from esb_workers.routing.route import MAX_DESTINATIONS, MAX_PRIORITY, MAX_TIMEOUT, MAX_WEIGHT

_CEL = Field(description="CEL over `message payload headers source messageType correlationId now`.")
_KEY = Field(min_length=1, description="Template; deliveries of one key go out in order.")


class TransformationBody(Body):
    """`template {output}`, `rename {fields}`, `pick {fields}`, `drop {fields}`, `set {fields}`, `default {fields}`,
    `headers {set, drop}`, `validate {schema}`, or a plug-in's."""

    model_config = {**Body.model_config, "extra": "allow"}

    type: str


Transformation = Annotated[
    TransformationBody | list[TransformationBody], Field(description="What is made of the payload, step by step.")
]


class DestinationBody(Body):
    """One destination of a route; what it leaves out, the route and then the service decide."""

    service: Annotated[str, Field(description="`name` or `name@RANGE`; need not be registered yet.")]
    path: Annotated[str | None, Field(min_length=1, description="Template of the path called.")] = None
    method: Literal["GET", "POST", "PUT", "PATCH", "DELETE"] | None = None
    transformation: Transformation | None = None
    timeout: Annotated[int | None, milliseconds(1, MAX_TIMEOUT)] = None
    retry_policy: RetryPolicyBody | None = None
    ordering_key: Annotated[str | None, _KEY] = None
    weight: Annotated[int, Field(ge=0, le=MAX_WEIGHT, description="For the strategy `weighted`.")] = 1
    condition: Annotated[str | None, _CEL] = None
    wire_tap: Annotated[bool, Field(description="Gets a copy whatever the strategy.")] = False
    on_dead: Annotated[
        Literal["continue", "block"], Field(description="Whether a dead delivery blocks those behind it.")
    ] = "continue"


class WorkflowDestinationBody(Body):
    """A destination that is a workflow: each delivery starts a run, whose initial context is the payload."""

    workflow: Annotated[Name, Field(description="Its name; need not be there yet.")]
    version: Annotated[str | None, Field(max_length=100, description="Default: the highest at the time.")] = None
    transformation: Transformation | None = None
    retry_policy: RetryPolicyBody | None = None
    ordering_key: Annotated[str | None, _KEY] = None
    weight: Annotated[int, Field(ge=0, le=MAX_WEIGHT, description="For the strategy `weighted`.")] = 1
    condition: Annotated[str | None, _CEL] = None
    wire_tap: Annotated[bool, Field(description="Gets a copy whatever the strategy.")] = False
    on_dead: Annotated[
        Literal["continue", "block"], Field(description="Whether a dead delivery blocks those behind it.")
    ] = "continue"


_SERVICES = Field(description="Templates: a list of services, or `${…}` that gives one.")


class SplitBody(Body):
    """One message becomes one for each item of a list; `item` and `index` are in scope."""

    items: Annotated[str | list[Any], Field(description="Template that gives a list: `${payload.lines}`.")]


class AggregateBody(Body):
    """Payloads of one key become one delivery, whose payload is their list. It is complete by what comes first."""

    key: Annotated[str, Field(min_length=1, description="Template.")] = "${correlationId}"
    size: Annotated[int | None, Field(ge=1, le=MAX_PARTS, description="With so many.")] = None
    timeout: Annotated[int, milliseconds(1, MAX_WAIT), Field(description="So long after the first.")] = DEFAULT_WAIT
    when: Annotated[
        str | None, Field(description="CEL, also over `items` and `count` so far: with the first for which it holds.")
    ] = None


class ResequenceBody(Body):
    """Deliveries of one key go out in the order of their numbers; a gap is waited for."""

    key: Annotated[str, Field(min_length=1, description="Template.")] = "${correlationId}"
    sequence: Annotated[str, Field(min_length=1, description="Template that gives a whole number.")]
    timeout: Annotated[int, milliseconds(1, MAX_WAIT), Field(description="For a gap.")] = DEFAULT_GAP
    first: Annotated[int | None, Field(description="The number a key begins with, where that is known.")] = None


class RouteBody(Body):
    """A route as people write it."""

    read_only: ClassVar[frozenset[str]] = frozenset(("id", "createdAt", "updatedAt"))

    name: Annotated[Name, Field(description="Unique without regard to case.")]
    pattern: Annotated[str, Field(max_length=255, description="Topic pattern over `messageType`: `user.*`, `order.#`.")]
    destinations: Annotated[
        list[str | DestinationBody | WorkflowDestinationBody],
        Field(max_length=MAX_DESTINATIONS, description="At least one, unless there are `recipients` or a `slip`."),
    ] = []
    conditions: Annotated[
        dict[str, Any] | None, Field(description="Flat map of path to value, or an EventBridge event pattern.")
    ] = None
    filter: Annotated[str | None, _CEL] = None
    transformation: Transformation | None = None
    priority: Annotated[int, Field(ge=-MAX_PRIORITY, le=MAX_PRIORITY, description="Higher is asked first.")] = 0
    stop_on_match: Annotated[bool, Field(description="If it takes a message, no later route is asked.")] = False
    enabled: bool = True
    strategy: Annotated[
        str,
        Field(description="`all`, `first_available`, `round_robin`, `weighted`, `recipient_list`, or a plug-in's."),
    ] = "all"
    retry_policy: RetryPolicyBody | None = None
    timeout: Annotated[int | None, milliseconds(1, MAX_TIMEOUT)] = None
    ordering_key: Annotated[str | None, _KEY] = None
    default: Annotated[bool, Field(description="Takes what no other route took.")] = False
    dead_letter: Annotated[
        str | None, Field(description="The service, `name` or `name@RANGE`, that is sent what ended dead.")
    ] = None
    split: SplitBody | None = None
    recipients: Annotated[str | list[str] | None, _SERVICES] = None
    slip: Annotated[str | list[str] | None, _SERVICES] = None
    aggregate: AggregateBody | None = None
    resequence: ResequenceBody | None = None


class RouteAnswer(Answer):
    """A route."""

    id: str
    name: str
    pattern: str
    destinations: list[str | dict[str, Any]] = []
    conditions: dict[str, Any] | None = None
    filter: str | None = None
    transformation: dict[str, Any] | list[dict[str, Any]] | None = None
    priority: int
    stop_on_match: bool = False
    enabled: bool
    strategy: str = "all"
    retry_policy: dict[str, Any] | None = None
    timeout: int | None = None
    ordering_key: str | None = None
    default: bool = False
    dead_letter: str | None = None
    split: dict[str, Any] | None = None
    recipients: str | list[str] | None = None
    slip: str | list[str] | None = None
    aggregate: dict[str, Any] | None = None
    resequence: dict[str, Any] | None = None
    created_at: Moment
    updated_at: Moment


class RoutePage(Answer):
    """Routes, newest first."""

    items: list[RouteAnswer]
    next_cursor: str | None


class RouteQuery(PageQuery):
    """Filters of the list of routes."""

    name: Words | None = None
    enabled: Annotated[list[Literal["true", "false"]], COMMAS] | None = None


# --- dry runs --------------------------------------------------------------------------------------------


class SampleMessage(Body):
    """A message to try routes on; all but its type may be left out."""

    message_type: MessageType
    source: str = "test"
    payload: Any = None
    headers: dict[str, str] = {}
    correlation_id: Visible | None = None


#: Stored messages that one dry run tries a route on.
MAX_TRIED = 200


class RoutingTestBody(Body):
    """What to try: a message as given, or a stored one, on all routes or on one that need not be saved.

    Or that one on the `last` messages that are stored.
    """

    message: SampleMessage | None = None
    message_id: Visible | None = None
    last: Annotated[int | None, Field(ge=1, le=MAX_TRIED, description="Newest first; needs `route`.")] = None
    route: Annotated[dict[str, Any] | None, Field(description="A route as for `POST /routing/routes`.")] = None


class FormAnswer(Answer):
    """What one destination would be sent."""

    destination: str
    payload: Any
    headers: dict[str, str] | None
    error: Annotated[str | None, Field(description="Why the transformation failed.")]
    index: Annotated[int | None, Field(description="Of which part of a split message.")] = None


class VerdictAnswer(Answer):
    """What one route would do."""

    message_id: Annotated[str | None, Field(description="Of the stored message that was tried.")] = None
    message_type: str | None = None
    route: str
    route_id: str | None
    matched: bool
    reasons: Annotated[list[str], Field(description="Which clause said no, and why.")]
    destinations: list[str]
    transformed_payload: Annotated[Any, Field(description="What the first destination would be sent.")]
    deliveries: list[FormAnswer] = []


class RoutingTestAnswer(Answer):
    """What each route would do, in the order in which they are asked."""

    matched: Annotated[bool, Field(description="Whether any route takes the message.")]
    items: list[VerdictAnswer]


class ConditionsTestBody(Body):
    """Conditions, and an event to try them on as it is, whatever its keys."""

    conditions: dict[str, Any]
    event: dict[str, Any]


class ConditionsTestAnswer(Answer):
    """Whether the event matches, and if not, why."""

    matched: bool
    reasons: list[str]
