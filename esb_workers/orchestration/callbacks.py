"""Addresses that let somebody without a key answer one `wait_for_signal`, once.

A token names the run, the step's path and the visit, and is sealed with the bus's secret key: nobody else can make one.
It is computed anew wherever it is needed, so that a call repeated after a crash carries the same one; what is stored is
the hash of a token that was used.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple
from uuid import UUID

from esb_workers.settings import Settings

_SEAL = 24  # bytes


class Target(NamedTuple):
    """What a token answers: the visit of a step in a run."""

    execution_id: str
    path: str
    iteration: int

    @property
    def signal(self) -> str:
        """The name under which the answer is kept until the step takes it."""
        return f"callback:{self.path}:{self.iteration}"


@dataclass(frozen=True, slots=True)
class Callbacks:
    """Makes tokens with the newest key, and reads those of any."""

    keys: Sequence[str]
    base: str  # URL of the API, as those outside reach it

    @classmethod
    def of(cls, settings: Settings) -> Callbacks:
        """By the settings of this process."""
        return cls(settings.secret_keys, settings.base_url)

    def token(self, target: Target) -> str:
        """The token of a visit."""
        return _text(_packed(target) + _seal(self.keys[0], _packed(target)))

    def url(self, target: Target) -> str:
        """Where its answer is to be sent."""
        return f"{self.base}/orchestration/callbacks/{self.token(target)}"

    def read(self, token: str) -> Target | None:
        """What a token answers; None if it is none of ours."""
        try:
            raw = base64.urlsafe_b64decode(token + "=" * (-len(token) % 4))
            body, seal = raw[:-_SEAL], raw[-_SEAL:]
            if not any(hmac.compare_digest(_seal(key, body), seal) for key in self.keys):
                return None
            return Target(str(UUID(bytes=body[:16])), body[20:].decode(), int.from_bytes(body[16:20]))
        except (binascii.Error, ValueError):
            return None


def digest(token: str) -> bytes:
    """What is stored of a used token."""
    return hashlib.sha256(token.encode()).digest()


def _packed(target: Target) -> bytes:
    return UUID(target.execution_id).bytes + target.iteration.to_bytes(4) + target.path.encode()


def _seal(key: str, body: bytes) -> bytes:
    return hmac.digest(key.encode(), b"esb callback\0" + body, "sha256")[:_SEAL]


def _text(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()
