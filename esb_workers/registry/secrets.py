"""Signing secrets: made here, encrypted at rest, shown only by the call that makes them."""

from __future__ import annotations

import base64
import binascii
import secrets
from collections.abc import Sequence
from typing import Final

from cryptography.fernet import Fernet, InvalidToken, MultiFernet

from esb_workers.errors import SettingsError

PREFIX: Final = "whsec_"
#: Bytes a secret may have: Standard Webhooks' range.
LEAST, MOST = 24, 64


def new_secret() -> str:
    """A fresh `whsec_` secret of 32 random bytes."""
    return PREFIX + base64.b64encode(secrets.token_bytes(32)).decode()


def check_secret(text: str) -> None:
    """Raises ValueError unless `text` is `whsec_` and the base64 of 24 to 64 bytes."""
    if not text.startswith(PREFIX):
        raise ValueError(f"must start with {PREFIX}")
    try:
        raw = base64.b64decode(text.removeprefix(PREFIX), validate=True)
    except (binascii.Error, ValueError):
        raise ValueError(f"must be {PREFIX} and base64") from None
    if not LEAST <= len(raw) <= MOST:
        raise ValueError(f"must hold {LEAST} to {MOST} bytes")


class Vault:
    """Encrypts secrets with the newest of the configured keys, and reads what any of them has written."""

    def __init__(self, keys: Sequence[str]) -> None:
        if not keys:
            raise SettingsError("ESB_SECRET_KEYS is not set: signing secrets cannot be kept without a key")
        try:
            self._fernet = MultiFernet([Fernet(key) for key in keys])
        except ValueError:
            raise SettingsError("ESB_SECRET_KEYS: each key must be 32 bytes in url-safe base64") from None

    def seal(self, secret: str) -> str:
        """`secret`, encrypted."""
        return self._fernet.encrypt(secret.encode()).decode()

    def reseal(self, sealed: str) -> str:
        """The same secret, encrypted with the newest key. Raises SettingsError if none of the keys has written it."""
        return self.seal(self.open(sealed))

    def open(self, sealed: str) -> str:
        """The secret in `sealed`. Raises SettingsError if none of the keys has written it."""
        try:
            return self._fernet.decrypt(sealed.encode()).decode()
        except InvalidToken:
            raise SettingsError("a stored secret was encrypted with a key that is not in ESB_SECRET_KEYS") from None
