"""Messages that no route took, and their replay."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from esb_api.schemas.base import Answer, Body
from esb_api.schemas.types import Moment

#: One word, or several of which one must fit.
OneOrMore = str | list[str]


class UnroutableFilterBody(Body):
    """Which of them; an empty filter means all."""

    message_id: OneOrMore | None = None
    message_type: OneOrMore | None = None
    source: OneOrMore | None = None
    client_id: OneOrMore | None = None
    from_: Annotated[Moment | None, Field(alias="from", description="Accepted then or later.")] = None
    to: Annotated[Moment | None, Field(description="Accepted before.")] = None


class UnroutableReplayBody(Body):
    """A replay of messages that no route took."""

    filter: UnroutableFilterBody = UnroutableFilterBody()
    limit: Annotated[int, Field(ge=1, le=10_000, description="Messages looked at, oldest first.")] = 1000
    dry_run: Annotated[bool, Field(description="Only say what it would send.")] = False


class ReplayedMessage(Answer):
    """A message that was sent again."""

    replay_of: str
    message_id: Annotated[str | None, Field(description="Of the new message; null in a dry run.")]
    message_type: str
    routes: Annotated[list[str], Field(description="The routes that take it now.")]


class UnroutableReplayAnswer(Answer):
    """What was sent again, or would be."""

    looked_at: int
    matched: Annotated[int, Field(description="Of those looked at, how many a route takes now; the others stay.")]
    more: Annotated[bool, Field(description="Whether there were more than `limit`; call again with a later `from`.")]
    items: list[ReplayedMessage]
