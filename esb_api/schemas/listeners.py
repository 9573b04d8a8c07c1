"""Listeners: queues of other brokers that are consumed into the bus."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Final, Literal

from pydantic import Field

from esb_api.params import PageQuery
from esb_api.schemas.base import Answer, Body
from esb_api.schemas.types import COMMAS, Moment, Name, Words, checked
from esb_workers.listening.definition import check_url
from esb_workers.listening.sources import MOST_PROCESSES

_TEMPLATE: Final = Field(max_length=16_384)
Template = Annotated[str, _TEMPLATE]


class MappingBody(Body):
    """Templates that say what message is made; what is left out is as the queue's message says.

    In scope: `body headers properties queue`, and `message`, the fields as they would be without a mapping.
    """

    message_type: Template | None = None
    payload: Any = None
    headers: dict[str, Template] | Template | None = None
    correlation_id: Template | None = None
    message_id: Annotated[
        Template | None, Field(description="A message with an id that was there before is taken for a repeat.")
    ] = None
    ordering_key: Template | None = None
    source: Template | None = None


class ListenerBody(Body):
    """A queue, and what is made of its messages."""

    read_only: ClassVar[frozenset[str]] = frozenset(("id", "status", "createdAt", "updatedAt"))

    name: Name
    url: Annotated[
        str,
        checked(check_url),
        Field(
            max_length=2000,
            pattern=r"^[^\x00-\x20\x7f]+$",
            examples=["amqp://user:password@localhost:5672/?queue=orders"],
            description="The queue, which must be there; shown without its password.",
        ),
    ]
    enabled: Annotated[bool, Field(description="False: paused; what comes waits in the queue.")] = True
    processes: Annotated[int, Field(ge=1, le=MOST_PROCESSES, description="Consumers at once; order needs one.")] = 1
    prefetch: Annotated[int, Field(ge=1, le=1000, description="Messages taken in one transaction at most.")] = 50
    mapping: MappingBody = MappingBody()


class ListenerQuery(PageQuery):
    """Filters of the list of listeners."""

    name: Words | None = None
    enabled: Annotated[list[Literal["true", "false"]], COMMAS] | None = None


class ListenerStatusAnswer(Answer):
    """How it goes."""

    state: Annotated[
        Literal["paused", "waiting", "running", "failing"],
        Field(description="`waiting`: no worker of the pool `ingress` has taken it up yet."),
    ]
    running: Annotated[int, Field(description="Processes that consume.")]
    accepted: int
    duplicates: Annotated[int, Field(description="Messages whose id had been accepted before.")]
    parked: int
    parked_now: Annotated[int, Field(description="Parked messages that were neither replayed nor discarded.")]
    last_message_at: Moment | None
    connected_at: Moment | None
    last_error: str | None
    last_error_at: Moment | None


class ListenerAnswer(Answer):
    """A listener."""

    id: str
    name: str
    url: str
    enabled: bool
    processes: int
    prefetch: int
    mapping: dict[str, Any]
    status: ListenerStatusAnswer
    created_at: Moment
    updated_at: Moment


class ListenerPage(Answer):
    """Listeners, newest first."""

    items: list[ListenerAnswer]
    next_cursor: str | None


class ParkedAnswer(Answer):
    """A message that could not become one of the bus."""

    id: str
    at: Moment
    reason: str
    body: Annotated[str | None, Field(description="As text, where it is UTF-8.")]
    body_base64: str
    headers: dict[str, Any]
    properties: dict[str, Any]


class ParkedPage(Answer):
    """Parked messages, newest first."""

    items: list[ParkedAnswer]
    next_cursor: str | None


class ReplayedParkedAnswer(Answer):
    """What became of a parked message."""

    id: Annotated[str, Field(description="The message's id.")]
