"""Inbound webhooks: how their senders prove themselves, and what message is made of a request."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Final, Literal

from pydantic import Field, model_validator

from esb_api.params import PageQuery
from esb_api.schemas.base import Answer, Body
from esb_api.schemas.clients import RateLimitsAnswer, RateLimitsBody
from esb_api.schemas.types import COMMAS, Moment, Name, Words, milliseconds
from esb_workers.webhooks.registry import MAX_SECRETS
from esb_workers.webhooks.verification import PLACEHOLDERS, TOLERANCE

_DAY: Final = 86_400_000
_HEADER = r"^[!#$%&'*+.^_`|~0-9A-Za-z-]{1,100}$"

Header = Annotated[str, Field(pattern=_HEADER)]
Secrets = Annotated[
    list[Annotated[str, Field(min_length=1, max_length=500)]] | None,
    Field(
        min_length=1, max_length=MAX_SECRETS, description="Any one of them will do. Never shown; left out, they stay."
    ),
]
Tolerance = Annotated[int, milliseconds(1000, _DAY, "How far the sender's clock may be off, milliseconds.")]
_TEMPLATE = Field(description="Template over `body headers query method`.")


class StandardVerificationBody(Body):
    """Standard Webhooks: `webhook-id`, `webhook-timestamp`, `webhook-signature`; secrets are `whsec_…`."""

    type: Literal["standard"]
    secrets: Secrets = None
    tolerance: Tolerance = TOLERANCE


class GitHubVerificationBody(Body):
    """GitHub's `X-Hub-Signature-256`."""

    type: Literal["github"]
    secrets: Secrets = None


class StripeVerificationBody(Body):
    """Stripe's `Stripe-Signature: t=…,v1=…`."""

    type: Literal["stripe"]
    secrets: Secrets = None
    tolerance: Tolerance = TOLERANCE


class HmacVerificationBody(Body):
    """An HMAC of the sender's own design."""

    type: Literal["hmac"]
    header: Annotated[Header, Field(description="Bears the signature.")]
    secrets: Secrets = None
    algorithm: Literal["sha256", "sha1", "sha384", "sha512"] = "sha256"
    encoding: Annotated[Literal["hex", "base64", "base64url"], Field(description="Of the signature.")] = "hex"
    prefix: Annotated[str, Field(max_length=100, description="Stands before the signature: `sha256=`.")] = ""
    secret_encoding: Annotated[Literal["utf8", "hex", "base64"], Field(description="How secrets are the key.")] = "utf8"
    signed: Annotated[
        str,
        Field(max_length=200, description="What is signed: `{body}`, or with more around it, `{timestamp}.{body}`."),
    ] = "{body}"
    timestamp_header: Annotated[Header | None, Field(description="Bears the time, in unix seconds.")] = None
    tolerance: Tolerance = TOLERANCE

    @model_validator(mode="after")
    def _signs_what_it_checks(self) -> HmacVerificationBody:
        timestamp, body = (self.signed.count(placeholder) for placeholder in PLACEHOLDERS)
        if body != 1:
            raise ValueError("`signed` must hold {body} once")
        if timestamp != (self.timestamp_header is not None):
            raise ValueError("`signed` must hold {timestamp} once if there is a timestampHeader, and only then")
        return self


class TokenVerificationBody(Body):
    """A shared secret that the request bears as it is."""

    type: Literal["token"]
    secrets: Secrets = None
    header: Header | None = None
    query: Annotated[str | None, Field(min_length=1, max_length=100, description="In place of a header.")] = None
    prefix: Annotated[str, Field(max_length=100, description="Stands before the token: `Bearer `.")] = ""

    @model_validator(mode="after")
    def _one_place(self) -> TokenVerificationBody:
        if (self.header is None) == (self.query is None):
            raise ValueError("give either `header` or `query`")
        return self


class NoVerificationBody(Body):
    """None: whoever knows the URL may send."""

    type: Literal["none"]


VerificationBody = Annotated[
    StandardVerificationBody
    | GitHubVerificationBody
    | StripeVerificationBody
    | HmacVerificationBody
    | TokenVerificationBody
    | NoVerificationBody,
    Field(discriminator="type"),
]


class MappingBody(Body):
    """What message is made of a request. What is left out has the verification type's default."""

    message_type: Annotated[str | None, Field(min_length=1, max_length=4096), _TEMPLATE] = None
    payload: Annotated[Any, Field(description="Template over `body headers query method`; default `${body}`.")] = None
    headers: Annotated[dict[str, str] | None, _TEMPLATE] = None
    message_id: Annotated[
        str | None,
        Field(min_length=1, max_length=4096, description="Template of the webhook's id: sent again, it is taken once."),
    ] = None
    correlation_id: Annotated[str | None, Field(min_length=1, max_length=4096), _TEMPLATE] = None
    source: Annotated[str | None, Field(min_length=1, max_length=4096), _TEMPLATE] = None
    ordering_key: Annotated[str | None, Field(min_length=1, max_length=4096), _TEMPLATE] = None


class ChallengeBody(Body):
    """How a sender makes sure of the URL: by a GET (`query`), by a POST (`when`, `answer`)."""

    query: Annotated[
        str | None, Field(min_length=1, max_length=100, description="Parameter of a GET whose value is the answer.")
    ] = None
    token_query: Annotated[
        str | None, Field(min_length=1, max_length=100, description="Parameter of the GET that must bear `token`.")
    ] = None
    token: Annotated[
        str | None, Field(min_length=8, max_length=500, description="Never shown; left out, it stays.")
    ] = None
    when: Annotated[
        str | None, Field(description="CEL over `body headers query method`: whether a POST is a challenge.")
    ] = None
    answer: Annotated[str | None, Field(min_length=1, max_length=4096, description="Template of the answer to it.")] = (
        None
    )

    @model_validator(mode="after")
    def _whole(self) -> ChallengeBody:
        if (self.when is None) != (self.answer is None):
            raise ValueError("`when` and `answer` go together")
        if self.token_query is not None and self.query is None:
            raise ValueError("`tokenQuery` needs `query`")
        if self.token is not None and self.token_query is None:
            raise ValueError("`token` needs `tokenQuery`")
        return self


class IngressBody(Body):
    """An inbound webhook as people register it."""

    read_only: ClassVar[frozenset[str]] = frozenset(("id", "path", "heldSecrets", "secret", "createdAt", "updatedAt"))

    name: Annotated[Name, Field(description="The last part of `/ingress/{name}`. Unique without regard to case.")]
    enabled: bool = True
    verification: VerificationBody
    mapping: MappingBody = MappingBody()
    challenge: ChallengeBody | None = None
    form_field: Annotated[
        str | None, Field(min_length=1, max_length=100, description="Field of a form that holds the body as JSON.")
    ] = None
    rate_limits: RateLimitsBody | None = None
    metadata: dict[str, Any] = {}


class SecretRotationBody(Body):
    """How an ingress's secret is rotated."""

    secret: Annotated[
        str | None, Field(min_length=1, max_length=500, description="The new one. Left out, it is made here.")
    ] = None
    overlap: Annotated[int, milliseconds(0, 30 * _DAY, "How long those before count as well, milliseconds.")] = _DAY


class IngressQuery(PageQuery):
    """Filters of the list of inbound webhooks."""

    name: Words | None = None
    enabled: Annotated[list[Literal["true", "false"]], COMMAS] | None = None


class RefusalQuery(PageQuery):
    """Filters of refused requests."""

    code: Words | None = None
    from_: Annotated[Moment | None, Field(alias="from", description="Inclusive.")] = None
    to: Annotated[Moment | None, Field(description="Exclusive.")] = None


# --- answers ---------------------------------------------------------------------------------------------


class HeldSecretAnswer(Answer):
    """A secret that counts, but for itself."""

    until: Annotated[Moment | None, Field(description="Then it ends; null: it stays.")]


class IngressAnswer(Answer):
    """An inbound webhook."""

    id: str
    name: str
    path: Annotated[str, Field(description="Where its senders post to.")]
    enabled: bool
    verification: Annotated[dict[str, Any], Field(description="Without its secrets.")]
    mapping: dict[str, Any]
    challenge: Annotated[dict[str, Any] | None, Field(description="Without its token.")]
    form_field: str | None
    rate_limits: RateLimitsAnswer
    metadata: dict[str, Any]
    held_secrets: Annotated[list[HeldSecretAnswer], Field(description="Newest first.")]
    created_at: Moment
    updated_at: Moment


class MadeIngressAnswer(IngressAnswer):
    """The same with its secret, this once, where the bus has made it."""

    secret: Annotated[str | None, Field(exclude_if=lambda value: value is None)] = None


class IngressPage(Answer):
    """Inbound webhooks, newest first."""

    items: list[IngressAnswer]
    next_cursor: str | None


class RotatedAnswer(Answer):
    """The secrets that count now, and the new one, this once, where the bus has made it."""

    secret: Annotated[str | None, Field(exclude_if=lambda value: value is None)] = None
    held_secrets: list[HeldSecretAnswer]


class RefusalAnswer(Answer):
    """A request that was refused."""

    id: str
    at: Moment
    status: int
    code: str
    reason: str
    method: str
    remote: Annotated[str | None, Field(description="The address it came from.")]
    content_type: str | None
    bytes: int | None
    headers: Annotated[dict[str, str], Field(description="Values of harmless headers; others are `[redacted]`.")]


class RefusalPage(Answer):
    """Refused requests, newest first."""

    items: list[RefusalAnswer]
    next_cursor: str | None
