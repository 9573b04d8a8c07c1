"""The operator's key and the encryption key: made on the first start, kept in the data directory."""

from __future__ import annotations

import base64
import os
import secrets
from pathlib import Path
from typing import NamedTuple

from pydantic import SecretStr

from esb_workers.node.folders import write_private
from esb_workers.settings import Settings

ADMIN_KEY_FILE = "admin-key"
SECRET_KEYS_FILE = "secret-keys"


class Keyed(NamedTuple):
    """Settings that have both keys, and the operator's key if it was made just now."""

    settings: Settings
    new_admin_key: str | None


def with_keys(settings: Settings) -> Keyed:
    """Fill in the keys that the settings lack, from the data directory or new."""
    admin, fresh = settings.admin_key, None
    if admin is None:
        text, made = _kept(settings.data_dir / ADMIN_KEY_FILE, secrets.token_hex(24))
        admin, fresh = SecretStr(text), text if made else None
    return Keyed(settings.model_copy(update={"admin_key": admin, "secret_keys": secret_keys_of(settings)}), fresh)


def secret_keys_of(settings: Settings) -> tuple[str, ...]:
    """The encryption keys, newest first: those of the settings, else of the data directory, else a new one there."""
    if settings.secret_keys:
        return settings.secret_keys
    text, _ = _kept(settings.data_dir / SECRET_KEYS_FILE, base64.urlsafe_b64encode(os.urandom(32)).decode())
    return tuple(part for part in text.split(",") if part)


def add_secret_key(settings: Settings, key: str) -> Path:
    """Put an encryption key in front of those in the data directory; the file that keeps them."""
    file = settings.data_dir / SECRET_KEYS_FILE
    write_private(file, ",".join((key, *secret_keys_of(settings))) + "\n")
    return file


def _kept(file: Path, new: str) -> tuple[str, bool]:
    """What the file holds, and False; or `new`, written to it, and True."""
    if file.exists():
        return file.read_text(encoding="ascii").strip(), False
    write_private(file, new + "\n")
    return new, True
