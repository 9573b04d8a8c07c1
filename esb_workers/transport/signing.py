"""Signatures by Standard Webhooks (symmetric, `v1`).

https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md
"""

from __future__ import annotations

import base64
import binascii
import hmac
import secrets as randomness
from collections.abc import Iterable, Mapping
from functools import lru_cache

from esb_workers.errors import EsbError

PREFIX = "whsec_"
TOLERANCE = 300
"""How far the clock of a sender may be off, seconds; the reference libraries' value."""
_MIN_BYTES, _MAX_BYTES = 24, 64


class SignatureInvalid(EsbError):
    """The webhook signature is missing, too old or does not match."""

    code = "signature_invalid"


def new_secret() -> str:
    """A fresh secret, `whsec_` and base64 of 32 random bytes."""
    return PREFIX + base64.b64encode(randomness.token_bytes(32)).decode()


def parse_secret(text: str) -> bytes:
    """The key inside a secret. Raises ValueError, which never quotes the secret."""
    if not text.startswith(PREFIX):
        raise ValueError("must start with whsec_")
    try:
        key = base64.b64decode(text.removeprefix(PREFIX), validate=True)
    except (binascii.Error, ValueError):
        raise ValueError("must be whsec_ and base64") from None
    if not _MIN_BYTES <= len(key) <= _MAX_BYTES:
        raise ValueError(f"must hold {_MIN_BYTES} to {_MAX_BYTES} bytes")
    return key


def sign(keys: Iterable[bytes], message_id: str, timestamp: int, body: bytes) -> str:
    """The value of `webhook-signature`: one `v1,…` for each key, so that receivers may change over in peace."""
    signed = b"%s.%d.%s" % (message_id.encode(), timestamp, body)
    return " ".join(["v1," + base64.b64encode(_digest(key, signed)).decode() for key in keys])


def _digest(key: bytes, signed: bytes) -> bytes:
    mac = _keyed(key).copy()
    mac.update(signed)
    return mac.digest()


@lru_cache(maxsize=1024)
def _keyed(key: bytes) -> hmac.HMAC:
    """With the key taken in, which is half of the work of a short message."""
    return hmac.new(key, digestmod="sha256")


def headers(keys: Iterable[bytes], message_id: str, timestamp: int, body: bytes) -> list[tuple[str, str]]:
    """The three headers of a signed webhook; `timestamp` is that of the attempt, in unix seconds."""
    return named(message_id, str(timestamp), sign(keys, message_id, timestamp, body))


def named(message_id: str, timestamp: str, signature: str) -> list[tuple[str, str]]:
    """The values of the three headers under their names."""
    return [("webhook-id", message_id), ("webhook-timestamp", timestamp), ("webhook-signature", signature)]


def verify(
    keys: Iterable[bytes], headers: Mapping[str, str], body: bytes, now: float, tolerance: int = TOLERANCE
) -> None:
    """Check a received webhook; `headers` by lower-case name. Raises SignatureInvalid."""
    try:
        message_id, timestamp = headers["webhook-id"], int(headers["webhook-timestamp"])
        given = [part.removeprefix("v1,") for part in headers["webhook-signature"].split() if part.startswith("v1,")]
    except (KeyError, ValueError):
        raise SignatureInvalid from None
    if abs(now - timestamp) > tolerance:
        raise SignatureInvalid("the webhook's timestamp is too far from now")
    for key in keys:
        expected = sign([key], message_id, timestamp, body).removeprefix("v1,")
        if any(hmac.compare_digest(expected.encode(), signature.encode()) for signature in given):
            return
    raise SignatureInvalid
