"""Ordering keys that do not get through."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from esb_api.params import PageQuery
from esb_api.schemas.base import Answer
from esb_api.schemas.messages import AttemptAnswer
from esb_api.schemas.types import COMMAS, Moment, Words

KeyState = Literal["blocked", "retrying", "in_flight"]


class BlockedKeyQuery(PageQuery):
    """Filters of blocked keys. Lists are comma lists."""

    key: Words | None = None
    destination: Words | None = None
    state: Annotated[
        list[Literal["blocked", "retrying"]] | None,
        COMMAS,
        Field(description="`blocked`: needs a person; `retrying`: goes on by itself, or will be dead."),
    ] = None


class HeadAnswer(Answer):
    """The delivery that the others of its key wait for."""

    id: Annotated[str, Field(description="The delivery's id, by which it is retried, skipped or parked.")]
    message_id: str
    attempts: Annotated[int, Field(description="Made so far.")]
    last_attempt: AttemptAnswer | None
    next_attempt_at: Moment | None


class BlockedKeyAnswer(Answer):
    """An ordering key whose head has failed and is not delivered yet."""

    id: Annotated[str, Field(description="Of the head delivery.")]
    key: str
    destination: str
    route: str | None
    route_id: str | None
    state: KeyState
    reason: Annotated[str | None, Field(description="The error class of the head.")]
    error: Annotated[str | None, Field(description="What went wrong last.")]
    since: Annotated[Moment, Field(description="When the head failed first.")]
    head: HeadAnswer
    waiting: Annotated[int, Field(description="Deliveries behind the head; counted up to 10000.")]


class BlockedKeyPage(Answer):
    """Blocked keys, newest head first."""

    items: list[BlockedKeyAnswer]
    next_cursor: str | None
