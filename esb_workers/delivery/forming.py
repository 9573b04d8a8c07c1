"""Deliveries that have no form as yet: making it is an act of its own, before the first call, and kept at once."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Protocol

from esb_workers.delivery.call import NotCalled
from esb_workers.delivery.prepare import Prepared
from esb_workers.errors import EsbError, Unavailable
from esb_workers.store.jobs import Claim
from esb_workers.store.messages import StoredMessage


class Former(Protocol):
    """Makes forms: what routes say of them is not the concern of deliveries. Safe for threads."""

    def form(
        self, claim: Claim, message: StoredMessage, payload: str, headers: dict[str, str]
    ) -> tuple[str, str, dict[str, Any] | None]:
        """Payload and headers as JSON text, and the receipt that goes out instead, if one does.

        Raises an EsbError; one with `error_class` was a call that failed.
        """
        ...


@dataclass(frozen=True, slots=True)
class Formed:
    """The form was made: JSON texts."""

    prepared: Prepared
    payload: str
    headers: str
    receipt: dict[str, Any] | None


@dataclass(frozen=True, slots=True)
class NotFormed:
    """It could not be made; `transient`: another attempt may succeed."""

    prepared: Prepared
    error_class: str
    error: str
    transient: bool
    duration_ms: int


def form(former: Former, prepared: Prepared) -> Formed | NotFormed | NotCalled:
    """Make the form of a delivery once. Raises Unavailable."""
    message, payload = prepared.message, prepared.payload
    if message is None or payload is None:
        return NotCalled(prepared, "dead", "PayloadGone")
    if message.expires_at is not None and message.expires_at <= datetime.now(UTC):
        return NotCalled(prepared, "expired", "expired")
    started = time.monotonic()
    try:
        return Formed(prepared, *former.form(prepared.claim, message, payload, _plain(prepared.headers)))
    except Unavailable:  # the bus's own database: nothing is wrong with the delivery
        raise
    except EsbError as error:
        held_ms = getattr(error, "held_ms", None)
        if held_ms is not None:
            return NotCalled(prepared, "held", getattr(error, "reason", ""), held_ms)
        took = round((time.monotonic() - started) * 1000)
        error_class = getattr(error, "error_class", type(error).__name__)
        transient = getattr(error, "transient", False)
        return NotFormed(prepared, error_class, error.detail, transient, took)


def _plain(headers: Mapping[str, str]) -> dict[str, str]:
    return dict(headers)
