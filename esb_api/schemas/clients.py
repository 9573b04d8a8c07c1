"""Clients: who may send and start, where to, and how often."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Final, Literal

from pydantic import AfterValidator, Field

from esb_api.params import PageQuery
from esb_api.schemas.base import Answer, Body
from esb_api.schemas.types import COMMAS, NAME_PATTERN, Moment, Name, Words, milliseconds
from esb_workers.errors import Invalid
from esb_workers.expressions.topics import parse_pattern

Status = Literal["active", "suspended"]

_MOST: Final = 1_000_000_000
UNSET_IS_LEFT_OUT: Final = Field(exclude_if=lambda value: value is None)
_SERVICE = rf"^\*$|{NAME_PATTERN}"


def _check_pattern(text: str) -> str:
    try:
        parse_pattern(text)
    except Invalid as error:
        raise ValueError(error.errors[0].message) from None
    return text


Pattern = Annotated[str, AfterValidator(_check_pattern), Field(max_length=255)]
Places = Annotated[int, Field(ge=1, le=_MOST)]


class RateLimitsBody(Body):
    """At most so many requests in each UTC second, minute, hour, day; any subset."""

    requests_per_second: Places | None = None
    requests_per_minute: Places | None = None
    requests_per_hour: Places | None = None
    requests_per_day: Places | None = None


class ClientBody(Body):
    """A client as people register it."""

    read_only: ClassVar[frozenset[str]] = frozenset(("id", "apiKey", "keyId", "createdAt", "updatedAt"))

    name: Annotated[Name, Field(description="Unique without regard to case.")]
    allowed_services: Annotated[
        list[Annotated[str, Field(pattern=_SERVICE)]],
        Field(max_length=1000, description="Names of services it may reach; `*` is all."),
    ] = []
    allowed_message_types: Annotated[
        list[Pattern], Field(max_length=1000, description="Topic patterns of the messages it may send.")
    ] = ["#"]
    rate_limits: RateLimitsBody | None = None
    max_payload_bytes: Annotated[int | None, Field(ge=1, le=_MOST, description="Largest payload, bytes of JSON.")] = (
        None
    )
    expires_at: Annotated[Moment | None, Field(description="From then on its keys are refused.")] = None
    status: Status = "active"
    metadata: dict[str, Any] = {}


class RotationBody(Body):
    """How a client's key is rotated."""

    expires_previous_in: Annotated[
        int | None,
        milliseconds(0, 366 * 86_400_000, "Milliseconds until the present keys end; without it they stay."),
    ] = None


class ClientQuery(PageQuery):
    """Filters of the list of clients."""

    name: Words | None = None
    status: Annotated[list[Status], COMMAS] | None = None


# --- answers ---------------------------------------------------------------------------------------------


class RateLimitsAnswer(Answer):
    """The limits that are set, and no others."""

    requests_per_second: Annotated[int | None, UNSET_IS_LEFT_OUT] = None
    requests_per_minute: Annotated[int | None, UNSET_IS_LEFT_OUT] = None
    requests_per_hour: Annotated[int | None, UNSET_IS_LEFT_OUT] = None
    requests_per_day: Annotated[int | None, UNSET_IS_LEFT_OUT] = None


class ClientAnswer(Answer):
    """A client."""

    id: str
    name: str
    allowed_services: list[str]
    allowed_message_types: list[str]
    rate_limits: RateLimitsAnswer
    max_payload_bytes: int | None
    expires_at: Moment | None
    status: Status
    metadata: dict[str, Any]
    created_at: Moment
    updated_at: Moment


class CreatedClientAnswer(ClientAnswer):
    """The same with its first key, this once."""

    api_key: str
    key_id: Annotated[str, Field(description="The public part of the key.")]


class ClientPage(Answer):
    """Clients, newest first."""

    items: list[ClientAnswer]
    next_cursor: str | None


class KeyAnswer(Answer):
    """A key, by its public part."""

    id: str
    created_at: Moment
    expires_at: Moment | None


class CreatedKeyAnswer(KeyAnswer):
    """The same with the key, this once."""

    api_key: str


class KeysAnswer(Answer):
    """A client's keys, newest first."""

    items: list[KeyAnswer]
    next_cursor: str | None


class HourAnswer(Answer):
    """What became of a client's requests in one hour."""

    hour: Annotated[Moment, Field(description="Its beginning.")]
    accepted: int
    rejected: int
    delivered: int


class WindowAnswer(Answer):
    """A quota window as it stands."""

    window: Literal["requestsPerSecond", "requestsPerMinute", "requestsPerHour", "requestsPerDay"]
    limit: int
    remaining: int
    reset: Annotated[int, Field(description="Seconds until it begins anew.")]


class UsageAnswer(Answer):
    """The last 24 hours, oldest first, and what is left."""

    hours: list[HourAnswer]
    windows: list[WindowAnswer]
