"""`claim_check`: of a large payload a receipt is sent, by which the receiver fetches it from the bus."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from esb_workers.routing.fields import Fields, whole
from esb_workers.routing.route import Destination, Route
from esb_workers.routing.transform import Form, Step

DEFAULT_THRESHOLD: Final = 65_536
MAX_THRESHOLD: Final = 1 << 30


@dataclass(frozen=True, slots=True)
class ClaimCheck:
    """The compiled step, always the last: it changes nothing of the form, which is what will be fetched."""

    threshold: int

    def __call__(self, form: Form) -> Form:
        """The form as it is."""
        return form


def claim_check(config: Mapping[str, Any], path: str) -> Step:
    """`claim_check {thresholdBytes}`. Raises Invalid."""
    fields = Fields.of(config, path)
    made = ClaimCheck(fields.optional("thresholdBytes", DEFAULT_THRESHOLD, whole(0, MAX_THRESHOLD)))
    fields.finish()
    return made


def receipt(
    route: Route | None, destination: Destination, base_url: str, delivery_id: str, payload: str
) -> dict[str, Any] | None:
    """What a delivery's cursor says of its receipt; None if its payload goes out itself.

    Whoever knows the token may fetch this one payload, so the URL is as secret as the payload.
    """
    pipeline = destination.transformation or (route.transformation if route else None)
    size = len(payload.encode())
    if pipeline is None or pipeline.threshold is None or size <= pipeline.threshold:
        return None
    token = secrets.token_urlsafe(24)
    return {"url": f"{base_url}/routing/claim-checks/{delivery_id}?token={token}", "token": token, "bytes": size}
