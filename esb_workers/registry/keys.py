"""API keys: how they are made, recognised and kept.

A key is `esb_<8 character public id>_<43 character secret><6 character checksum>`; a service's own begins
with `esbs_`. The public id finds the row and may be shown and logged. The checksum (CRC-32 of what stands
before it) lets a typo or a scanner's guess be told without asking the database. Of the key itself only the
SHA-256 is kept: the secret has 256 bits of chance, so there is nothing to guess and no salt or slow hash to
add.
"""

from __future__ import annotations

import hashlib
import re
import secrets
import string
import zlib
from typing import Final, Literal, NamedTuple

_ALPHABET: Final = string.digits + string.ascii_uppercase + string.ascii_lowercase
_SHAPE: Final = re.compile(r"(esbs?)_([0-9A-Za-z]{8})_([0-9A-Za-z]{43})([0-9A-Za-z]{6})")

Kind = Literal["client", "service"]
_PREFIXES: Final[dict[Kind, str]] = {"client": "esb", "service": "esbs"}


class NewKey(NamedTuple):
    """A key just made. `text` is shown once and never stored."""

    id: str
    text: str
    digest: bytes


def new_key(kind: Kind) -> NewKey:
    """A fresh random key."""
    public_id, secret = _random(8), _random(43)
    head = f"{_PREFIXES[kind]}_{public_id}_{secret}"
    text = head + _checksum(head)
    return NewKey(public_id, text, digest(text))


def public_id(text: str) -> str | None:
    """The public id in `text`, or None if it cannot be a key of ours."""
    match = _SHAPE.fullmatch(text)
    if match is None or _checksum(text[:-6]) != match[4]:
        return None
    return match[2]


def digest(text: str) -> bytes:
    """What is stored of a key."""
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).digest()


def _random(length: int) -> str:
    return "".join(secrets.choice(_ALPHABET) for _ in range(length))


def _checksum(text: str) -> str:
    number, letters = zlib.crc32(text.encode()), ""
    for _ in range(6):
        number, rest = divmod(number, len(_ALPHABET))
        letters = _ALPHABET[rest] + letters
    return letters
