"""Is a request from whom it says? One class for each way of proving it, over the bytes exactly as received.

Sources: Standard Webhooks (https://www.standardwebhooks.com), GitHub (docs.github.com, "Validating webhook
deliveries"), Stripe (docs.stripe.com/webhooks, "Verify webhook signatures manually"). Comparisons take the same
time wherever the difference lies. What a refusal says tells which part was wrong, and no secret.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re
import secrets as randomness
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

from esb_workers.errors import Unauthenticated
from esb_workers.registry.secrets import check_secret, new_secret
from esb_workers.transport import signing

#: How far a sender's clock may be off, milliseconds, where nothing else is said: five minutes, as Standard
#: Webhooks and Stripe have it.
TOLERANCE: Final = signing.TOLERANCE * 1000
ALGORITHMS: Final = ("sha256", "sha1", "sha384", "sha512")
ENCODINGS: Final = ("hex", "base64", "base64url")
SECRET_ENCODINGS: Final = ("utf8", "hex", "base64")
#: What an HMAC of one's own may sign: text around these.
PLACEHOLDERS: Final = ("{timestamp}", "{body}")
_PLACEHOLDER: Final = re.compile(r"\{(?:timestamp|body)\}")
_LEAST, _MOST = 8, 500
_VISIBLE: Final = re.compile(r"[ -~]+")


@dataclass(frozen=True, slots=True)
class Received:
    """A request as it came. Header names in lower case."""

    method: str
    headers: Mapping[str, str]
    query: Mapping[str, str]
    body: bytes


class Verification(Protocol):
    """A way of proving where a request comes from."""

    def verify(self, request: Received, secrets: Sequence[str], now: float) -> None:
        """Raises Unauthenticated (`verification_failed`) unless one of `secrets` has signed it."""
        ...

    def check_secret(self, secret: str) -> None:
        """Raises ValueError, which never quotes the secret, for one of another form."""
        ...

    def new_secret(self) -> str | None:
        """A fresh secret, or None where only the sender makes them."""
        ...


def refused(reason: str) -> Unauthenticated:
    """The request is not proven to be genuine, because of `reason`."""
    return Unauthenticated(f"The request could not be verified: {reason}.", code="verification_failed")


@dataclass(frozen=True, slots=True)
class _Text:
    """What the kinds whose secret is any text have in common."""

    def check_secret(self, secret: str) -> None:
        if not _LEAST <= len(secret) <= _MOST or not _VISIBLE.fullmatch(secret):
            raise ValueError(f"must have {_LEAST} to {_MOST} visible ASCII characters")

    def new_secret(self) -> str | None:
        return randomness.token_urlsafe(32)


@dataclass(frozen=True, slots=True)
class Standard:
    """Standard Webhooks: `webhook-id`, `webhook-timestamp`, `webhook-signature`."""

    tolerance: int = TOLERANCE

    def verify(self, request: Received, secrets: Sequence[str], now: float) -> None:
        for name in ("webhook-id", "webhook-timestamp", "webhook-signature"):
            _header(request, name)
        _check_moment(request.headers["webhook-timestamp"], now, self.tolerance)
        keys = [signing.parse_secret(secret) for secret in secrets]
        try:
            signing.verify(keys, request.headers, request.body, now, self.tolerance // 1000 + 1)
        except signing.SignatureInvalid:
            raise refused("the signature does not match") from None

    def check_secret(self, secret: str) -> None:
        check_secret(secret)

    def new_secret(self) -> str | None:
        return new_secret()


@dataclass(frozen=True, slots=True)
class GitHub(_Text):
    """`X-Hub-Signature-256: sha256=` and the hex HMAC of the body."""

    def verify(self, request: Received, secrets: Sequence[str], now: float) -> None:
        given = _header(request, "x-hub-signature-256")
        if not given.startswith("sha256="):
            raise refused("X-Hub-Signature-256 does not start with sha256=")
        _check_any([_hex(given.removeprefix("sha256="))], (_digest(one.encode(), request.body) for one in secrets))


@dataclass(frozen=True, slots=True)
class Stripe(_Text):
    """`Stripe-Signature: t=…,v1=…`; signed is the timestamp, a dot, and the body."""

    tolerance: int = TOLERANCE

    def verify(self, request: Received, secrets: Sequence[str], now: float) -> None:
        parts = [part.strip().partition("=") for part in _header(request, "stripe-signature").split(",")]
        moment = next((value for name, _, value in parts if name == "t"), "")
        given = [_hex(value) for name, _, value in parts if name == "v1"]
        if not moment or not given:
            raise refused("Stripe-Signature has no t= or no v1=")
        _check_moment(moment, now, self.tolerance)
        signed = moment.encode() + b"." + request.body
        _check_any(given, (_digest(one.encode(), signed) for one in secrets))

    def new_secret(self) -> str | None:
        return None


@dataclass(frozen=True, slots=True)
class Hmac(_Text):
    """An HMAC of the sender's own design."""

    header: str
    algorithm: str = "sha256"
    encoding: str = "hex"
    prefix: str = ""
    secret_encoding: str = "utf8"
    signed: str = "{body}"
    timestamp_header: str | None = None
    tolerance: int = TOLERANCE

    def verify(self, request: Received, secrets: Sequence[str], now: float) -> None:
        given = _header(request, self.header)
        if not given.startswith(self.prefix):
            raise refused(f"{self.header} does not start with {self.prefix}")
        moment = ""
        if self.timestamp_header is not None:
            moment = _header(request, self.timestamp_header)
            _check_moment(moment, now, self.tolerance)
        signed = self._signed(moment, request.body)
        digests = (_digest(self._key(one), signed, self.algorithm) for one in secrets)
        _check_any([_DECODERS[self.encoding](given.removeprefix(self.prefix))], digests)

    def check_secret(self, secret: str) -> None:
        super(Hmac, self).check_secret(secret)
        try:
            key = self._key(secret)
        except ValueError:
            raise ValueError(f"must be {self.secret_encoding}") from None
        if not key:
            raise ValueError("must hold at least one byte")

    def new_secret(self) -> str | None:
        raw = randomness.token_bytes(32)
        if self.secret_encoding == "utf8":
            return randomness.token_urlsafe(32)
        return raw.hex() if self.secret_encoding == "hex" else base64.b64encode(raw).decode()

    def _signed(self, moment: str, body: bytes) -> bytes:
        # By position, not by replacing: the timestamp is the sender's text and might itself read `{body}`.
        values = {"{timestamp}": moment.encode(), "{body}": body}
        literals, found = _PLACEHOLDER.split(self.signed), _PLACEHOLDER.findall(self.signed)
        pieces = [literals[0].encode()]
        for placeholder, literal in zip(found, literals[1:], strict=True):
            pieces += (values[placeholder], literal.encode())
        return b"".join(pieces)

    def _key(self, secret: str) -> bytes:
        if self.secret_encoding == "hex":
            return bytes.fromhex(secret)
        return base64.b64decode(secret, validate=True) if self.secret_encoding == "base64" else secret.encode()


@dataclass(frozen=True, slots=True)
class Token(_Text):
    """A shared secret that the request bears as it is, in a header or a query parameter."""

    header: str | None = None
    query: str | None = None
    prefix: str = ""

    def verify(self, request: Received, secrets: Sequence[str], now: float) -> None:
        given = _header(request, self.header) if self.header else request.query.get(self.query or "")
        if given is None:
            raise refused(f"the query parameter {self.query} is missing")
        if not given.startswith(self.prefix):
            raise refused("the token has another prefix")
        # As digests: of equal length, so that the time of the comparison tells nothing of the token's.
        token = given.removeprefix(self.prefix)
        _check_any([_sha256(token)], (_sha256(one) for one in secrets), "the token is not one of this ingress")


@dataclass(frozen=True, slots=True)
class Nothing:
    """No proof at all: whoever knows the URL may send."""

    def verify(self, request: Received, secrets: Sequence[str], now: float) -> None:
        return

    def check_secret(self, secret: str) -> None:
        raise ValueError("an ingress without verification has no secrets")

    def new_secret(self) -> str | None:
        return None


_KINDS: Final[Mapping[str, Callable[..., Verification]]] = {
    "standard": Standard,
    "github": GitHub,
    "stripe": Stripe,
    "hmac": Hmac,
    "token": Token,
    "none": Nothing,
}
_FIELDS: Final = {"secretEncoding": "secret_encoding", "timestampHeader": "timestamp_header"}


def verification_of(value: Mapping[str, Any]) -> Verification:
    """The verification that a definition describes: `{"type": …}` and the fields of that type."""
    fields = {_FIELDS.get(name, name): given for name, given in value.items() if name != "type"}
    return _KINDS[value["type"]](**fields)


# --- parts -----------------------------------------------------------------------------------------------


def _header(request: Received, name: str) -> str:
    value = request.headers.get(name.lower(), "").strip()
    if not value:
        raise refused(f"the header {name} is missing")
    return value


def _check_moment(text: str, now: float, tolerance: int) -> None:
    """Unix seconds, or milliseconds where they have the thirteen digits of those."""
    if not (text.isascii() and text.isdigit() and len(text) <= 13):
        raise refused("the timestamp is not in unix seconds")
    moment = int(text) / (1000 if len(text) == 13 else 1)
    if abs(now - moment) * 1000 > tolerance:
        raise refused("the timestamp is too far from now")


def _check_any(given: Sequence[bytes], wanted: Any, reason: str = "the signature does not match") -> None:
    # Each with each, without stopping early.
    matches = [hmac.compare_digest(one, other) for other in wanted for one in given]
    if not any(matches):
        raise refused(reason)


def _digest(key: bytes, data: bytes, algorithm: str = "sha256") -> bytes:
    return hmac.digest(key, data, algorithm)


def _sha256(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).digest()


def _hex(text: str) -> bytes:
    """The bytes, or none at all, which match nothing."""
    try:
        return bytes.fromhex(text)
    except ValueError:
        return b""


def _base64(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return b""


def _base64url(text: str) -> bytes:
    return _base64(text.translate(str.maketrans("-_", "+/")) + "=" * (-len(text) % 4))


_DECODERS: Final[Mapping[str, Callable[[str], bytes]]] = {"hex": _hex, "base64": _base64, "base64url": _base64url}
