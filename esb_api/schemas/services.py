"""Services: what is registered, and what the bus finds out about it."""

from __future__ import annotations

import re
from typing import Annotated, Any, ClassVar, Final, Literal

from pydantic import AfterValidator, Field, StringConstraints, ValidationInfo
from pydantic_core import PydanticCustomError

from esb_api.params import PageQuery
from esb_api.schemas.base import Answer, Body
from esb_api.schemas.retries import RetryPolicyBody
from esb_api.schemas.types import COMMAS, Moment, Name, Words, checked, milliseconds
from esb_workers.health.judge import parse_expected
from esb_workers.health.probe import tcp_place
from esb_workers.registry.secrets import check_secret
from esb_workers.registry.versions import parse_range, parse_version
from esb_workers.transport.errors import RequestRefused
from esb_workers.transport.transports import PULL, known, scheme_of
from esb_workers.transport.web import check_url

Status = Literal["active", "maintenance", "inactive"]
Health = Literal["unknown", "healthy", "degraded", "unhealthy"]
Circuit = Literal["closed", "open", "half_open"]

_DAY: Final = 86_400_000
_TAG = r"^[^,\x00-\x1f\x7f]{1,100}$"
_HEADER_NAME = r"^[!#$%&'*+\-.^_`|~0-9A-Za-z]{1,200}$"
_HEADER_VALUE = r"^[\t -~]{0,4096}$"
#: Headers the bus writes itself, or that concern one connection only.
_OWN_HEADERS: Final = re.compile(r"(?i)host|content-.*|ce-.*|webhook-.*|idempotency-key|connection|transfer-encoding")


def _check_endpoint(text: str) -> None:
    if len(text) > 2000 or re.search(r"[\x00-\x20\x7f]", text):
        raise ValueError("must be a URL of at most 2000 characters without spaces")
    if text == PULL:
        return
    transport = known().get(scheme_of(text))
    if transport is None:
        raise ValueError(f"must start with one of {', '.join(f'{scheme}://' for scheme in sorted(known()))}")
    transport.check_endpoint(text)


def _check_tcp(text: str) -> None:
    try:
        tcp_place(text)
    except (RequestRefused, ValueError):
        raise ValueError("must be tcp://HOST:PORT, HOST:PORT or an http(s) URL") from None


def _check_header_name(name: str) -> None:
    if _OWN_HEADERS.fullmatch(name):
        raise ValueError("is written by the bus itself")


def _check_heartbeat(text: str) -> None:
    raise ValueError("a heartbeat comes from the service: there is no url to check")


_URL_CHECKS: Final = {"http": check_url, "tcp": _check_tcp, "heartbeat": _check_heartbeat}


def _fits_type(url: str | None, info: ValidationInfo) -> str | None:
    kind = info.data.get("type")  # absent if it is itself at fault
    if url is None and kind in ("http", "tcp"):
        raise PydanticCustomError("missing", "is required")
    if url is not None and kind is not None:
        _URL_CHECKS[kind](url)
    return url


class HealthCheckBody(Body):
    """How the service's health is found out."""

    type: Literal["http", "tcp", "heartbeat"] = "http"  # first: what the url may be depends on it
    url: Annotated[
        Annotated[str, StringConstraints(max_length=2000)] | None,
        AfterValidator(_fits_type),
        Field(
            validate_default=True,
            description="`http(s)://…`; for type `tcp` also `tcp://HOST:PORT` or `HOST:PORT`; none for `heartbeat`.",
        ),
    ] = None
    interval: Annotated[int, milliseconds(50, _DAY)] = 30_000
    timeout: Annotated[int, milliseconds(1, 600_000)] = 5000
    healthy_threshold: Annotated[int, Field(ge=1, le=100, description="Good checks in a row for `healthy`.")] = 2
    unhealthy_threshold: Annotated[int, Field(ge=1, le=100, description="Bad checks in a row for `unhealthy`.")] = 3
    expected_status: Annotated[str, checked(parse_expected), Field(max_length=100, examples=["2xx", "200,204"])] = "2xx"
    ttl: Annotated[
        int | None,
        milliseconds(50, 30 * _DAY, "Time without a heartbeat until `unhealthy`; three intervals unless given."),
    ] = None


class DeliveryBody(Body):
    """How deliveries and workflow calls reach the service."""

    path: Annotated[str | None, Field(max_length=2000, pattern=r"^[^\x00-\x20\x7f#]*$")] = None
    method: Literal["POST", "PUT", "PATCH", "DELETE", "GET"] = "POST"
    timeout: Annotated[int, milliseconds(1, 3_600_000)] = 10_000
    headers: Annotated[
        dict[
            Annotated[str, StringConstraints(pattern=_HEADER_NAME), checked(_check_header_name)],
            Annotated[str, StringConstraints(pattern=_HEADER_VALUE)],
        ],
        Field(max_length=100, description="Sent with every call; they win over a message's headers."),
    ] = {}
    format: Annotated[
        Literal["binary", "structured", "payload"], Field(description="CloudEvents' content mode, or the bare payload.")
    ] = "binary"
    max_concurrency: Annotated[int | None, Field(ge=1, le=100_000, description="Calls under way at once.")] = None
    rate_per_second: Annotated[float | None, Field(gt=0, le=1_000_000, description="Calls begun in a second.")] = None
    catch_up_per_second: Annotated[
        float | None,
        Field(gt=0, le=1_000_000, description="The same while deliveries that were held go out, until none is left."),
    ] = None
    retry_policy: RetryPolicyBody | None = None
    signing_secret: Annotated[
        Annotated[str, checked(check_secret), Field(pattern="^whsec_[A-Za-z0-9+/]{32,86}={0,2}$")] | None,
        Field(description="`whsec_` and the base64 of 24 to 64 bytes. Shown only by creation and rotation."),
    ] = None


class ServiceBody(Body):
    """A service's instance as people register it."""

    read_only: ClassVar[frozenset[str]] = frozenset(
        ("id", "status", "health", "healthChangedAt", "lastCheck", "circuit", "createdAt", "updatedAt")
    )

    name: Annotated[Name, Field(description="Instances of one service share it.")]
    version: Annotated[
        str, checked(parse_version), Field(max_length=100, examples=["1.0.0"], description="A semantic version.")
    ]
    endpoint: Annotated[
        str,
        checked(_check_endpoint),
        Field(
            max_length=2000,
            examples=["http://localhost:3001", "amqp://user:password@localhost:5672/?queue=orders"],
            description="Base URL; or the URL of another broker's queue or exchange, shown without its password; "
            "or `pull:` for a service that fetches its deliveries.",
        ),
    ]
    health_check: HealthCheckBody | None = None
    weight: Annotated[int, Field(ge=0, le=1_000_000, description="Share of the calls among instances.")] = 1
    tags: Annotated[list[Annotated[str, StringConstraints(pattern=_TAG)]], Field(max_length=100)] = []
    metadata: dict[str, Any] = {}
    delivery: DeliveryBody | None = None


class StatusBody(Body):
    """What a person decides about an instance."""

    status: Annotated[
        Status, Field(description="`maintenance` holds deliveries without loss, `inactive` takes out of discovery.")
    ]


class RotationBody(Body):
    """How a signing secret is rotated."""

    overlap: Annotated[int, milliseconds(0, 30 * _DAY, "How long the old secret signs as well, milliseconds.")] = _DAY


class ServiceQuery(PageQuery):
    """Filters of the list of services."""

    name: Words | None = None
    status: Annotated[list[Status], COMMAS] | None = None
    health: Annotated[list[Health], COMMAS] | None = None
    tag: Annotated[Words | None, Field(description="Any of these tags.")] = None


class DiscoverQuery(PageQuery):
    """What instances are wanted."""

    version: Annotated[
        Annotated[str, checked(parse_range)] | None,
        Field(description="An npm-style range, such as `^1.2`.", examples=["^1.2"]),
    ] = None
    tag: Annotated[Words | None, Field(description="Any of these tags.")] = None


# --- answers ---------------------------------------------------------------------------------------------


class LastCheckAnswer(Answer):
    """The outcome of the latest check."""

    at: Moment
    ok: bool
    latency_ms: int | None = None
    status_code: int | None = None
    error: str | None = None


class HealthCheckAnswer(Answer):
    """How the service's health is found out."""

    url: str | None = None
    interval: int
    timeout: int
    healthy_threshold: int
    unhealthy_threshold: int
    expected_status: str
    type: str
    ttl: int | None = None


class DeliveryAnswer(Answer):
    """How calls reach the service."""

    path: str | None = None
    method: str
    timeout: int
    headers: dict[str, str]
    format: str
    max_concurrency: int | None = None
    rate_per_second: float | None = None
    catch_up_per_second: float | None = None
    retry_policy: dict[str, Any] | None = None


class CreatedDeliveryAnswer(DeliveryAnswer):
    """The same with the secret, this once."""

    signing_secret: str


class ServiceAnswer(Answer):
    """A service's instance."""

    id: str
    name: str
    version: str
    endpoint: str
    health_check: HealthCheckAnswer | None
    weight: int
    tags: list[str]
    metadata: dict[str, Any]
    delivery: DeliveryAnswer
    status: Status
    health: Health
    health_changed_at: Moment | None
    last_check: LastCheckAnswer | None
    circuit: Circuit
    created_at: Moment
    updated_at: Moment


class CreatedServiceAnswer(ServiceAnswer):
    """The same with the secret, this once."""

    delivery: CreatedDeliveryAnswer


class ServicePage(Answer):
    """Services, newest first."""

    items: list[ServiceAnswer]
    next_cursor: str | None


class InstanceAnswer(Answer):
    """An instance that may be called."""

    id: str
    name: str
    version: str
    endpoint: str
    weight: int
    status: Status
    health: Health
    circuit: Circuit
    tags: list[str]
    metadata: dict[str, Any]


class InstancesAnswer(Answer):
    """The instances that may be called, highest version first."""

    items: list[InstanceAnswer]
    next_cursor: str | None


class FoundAnswer(Answer):
    """One check, and the health after it."""

    id: str
    at: Moment
    ok: bool
    latency_ms: int | None
    status_code: int | None
    error: str | None
    health: Health
    changed: Annotated[bool, Field(description="Whether the health changed by this check.")]


class CheckAnswer(FoundAnswer):
    """A check in its place in the history."""

    seq: int


class CheckPage(Answer):
    """Checks, oldest first."""

    items: list[CheckAnswer]
    next_cursor: str | None


class ServiceKeyBody(Body):
    """What a service's key is for."""

    scope: Annotated[
        Literal["heartbeat", "pull"], Field(description="Send its heartbeat, or pull its deliveries; nothing else.")
    ] = "heartbeat"


class ServiceKeyAnswer(Answer):
    """A key that may do one thing for one service."""

    id: Annotated[str, Field(description="The public part of the key.")]
    scope: Literal["heartbeat", "pull"]
    created_at: Moment
    expires_at: Moment | None


class CreatedServiceKeyAnswer(ServiceKeyAnswer):
    """The same with the key, this once."""

    api_key: str


class ServiceKeysAnswer(Answer):
    """A service's keys, newest first."""

    items: list[ServiceKeyAnswer]
    next_cursor: str | None


class SecretAnswer(Answer):
    """A new signing secret, shown this once."""

    signing_secret: str
    previous_expires_at: Annotated[Moment | None, Field(description="Until then the old one signs as well.")]
