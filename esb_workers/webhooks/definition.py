"""An ingress ready for use: compiled, with its secrets open."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from esb_workers.errors import EsbError, FieldError, Forbidden, Invalid
from esb_workers.expressions.cel import Expression, compile_expression
from esb_workers.expressions.templates import Template, compile_template
from esb_workers.registry.quotas import Limit, limits_of
from esb_workers.webhooks.mapping import RequestMapping
from esb_workers.webhooks.verification import Received, Verification, refused, verification_of

#: Characters of an answer to a challenge.
MAX_CHALLENGE: Final = 1024
#: GitHub sends its JSON in this field where a hook is set to forms.
_JSON_FIELDS: Final = {"github": "payload"}


class OpenSecret(NamedTuple):
    """A secret in clear, and until when it counts (unix seconds; None: for ever)."""

    text: str
    until: float | None


@dataclass(frozen=True, slots=True)
class QueryChallenge:
    """A sender makes sure of a URL by a GET: its parameter `query` is answered, if `token_query` bears the token."""

    query: str
    token_query: str | None = None

    def answer(self, query: Mapping[str, str], token: str | None) -> str:
        """What to answer. Raises Unauthenticated, Invalid."""
        if self.token_query is not None:
            given = hashlib.sha256(query.get(self.token_query, "").encode("utf-8", "replace")).digest()
            if not hmac.compare_digest(given, hashlib.sha256((token or "").encode()).digest()):
                raise refused(f"the query parameter {self.token_query} is not what was agreed on")
        if self.query not in query:
            raise Invalid([FieldError(self.query, "is required")])
        return _challenge(query[self.query], self.query)


@dataclass(frozen=True, slots=True)
class BodyChallenge:
    """A sender makes sure of a URL by a POST, which is verified like any other, and is answered and no message."""

    when: Expression
    response: Template

    def answer(self, names: Mapping[str, Any]) -> str | None:
        """What to answer; None for a request that is no challenge."""
        try:
            return (
                _challenge(self.response.render(names), "challenge.answer")
                if self.when.evaluate(names) is True
                else None
            )
        except EsbError as error:
            if isinstance(error, Invalid):
                raise
            return None  # `body.type` of a body that has none: no challenge


@dataclass(frozen=True, slots=True)
class Ingress:
    """A definition in force. Immutable and safe to share between threads."""

    id: str
    name: str
    enabled: bool
    kind: str
    verification: Verification
    mapping: RequestMapping
    query_challenge: QueryChallenge | None
    body_challenge: BodyChallenge | None
    json_field: str | None
    limits: tuple[Limit, ...]
    secrets: tuple[OpenSecret, ...] = ()
    challenge_token: str | None = None

    def require_enabled(self) -> None:
        """Raises Forbidden (`ingress_disabled`)."""
        if not self.enabled:
            raise Forbidden("This ingress is switched off.", code="ingress_disabled")

    def verify(self, request: Received, now: float) -> None:
        """Raises Unauthenticated unless the request is proven by one of the secrets that count at `now`."""
        secrets = [one.text for one in self.secrets if one.until is None or one.until > now]
        self.verification.verify(request, secrets, now)


def compile_ingress(
    body: Mapping[str, Any],
    *,
    ingress_id: str = "",
    name: str = "",
    enabled: bool = True,
    secrets: Sequence[OpenSecret] = (),
    challenge_token: str | None = None,
) -> Ingress:
    """The definition in `body`, whose shape has been checked. Raises Invalid naming each fault."""
    faults: list[FieldError] = []

    def part(make: Any) -> Any:
        try:
            return make()
        except Invalid as error:
            faults.extend(error.errors)

    kind = body["verification"]["type"]
    challenge = body.get("challenge") or {}
    mapping = part(lambda: RequestMapping(body.get("mapping") or {}, kind, name))
    posted = part(lambda: _body_challenge(challenge))
    if faults:
        raise Invalid(faults)
    return Ingress(
        id=ingress_id,
        name=name,
        enabled=enabled,
        kind=kind,
        verification=verification_of(body["verification"]),
        mapping=mapping,
        query_challenge=QueryChallenge(challenge["query"], challenge.get("tokenQuery"))
        if challenge.get("query")
        else None,
        body_challenge=posted,
        json_field=body.get("formField") or _JSON_FIELDS.get(kind),
        limits=limits_of(body.get("rateLimits") or {}),
        secrets=tuple(secrets),
        challenge_token=challenge_token,
    )


def _body_challenge(challenge: Mapping[str, Any]) -> BodyChallenge | None:
    if not challenge.get("when"):
        return None
    when = compile_expression(challenge["when"], "challenge.when")
    return BodyChallenge(when, compile_template(challenge["answer"], "challenge.answer"))


def _challenge(value: Any, path: str) -> str:
    if not isinstance(value, str) or not 1 <= len(value) <= MAX_CHALLENGE or not value.isprintable():
        raise Invalid([FieldError(path, f"must be 1 to {MAX_CHALLENGE} printable characters")])
    return value
