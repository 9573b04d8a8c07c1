"""Retry policies, as services and routes take them."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from esb_api.schemas.base import Body
from esb_api.schemas.types import milliseconds

_MONTH = 30 * 86_400_000


class RetryPolicyBody(Body):
    """When a failed try is repeated. A field that is not given has its default singly."""

    max_retries: Annotated[int, Field(ge=0, le=1000, description="Tries after the first.")] = 3
    backoff_strategy: Annotated[
        Literal["fixed", "linear", "exponential"], Field(description="Delays d, d·n, or d·2^(n-1).")
    ] = "exponential"
    initial_delay: Annotated[int, milliseconds(0, _MONTH)] = 1000
    max_delay: Annotated[int, milliseconds(0, _MONTH)] = 60_000
    jitter: Annotated[float, Field(ge=0, le=1, description="Share by which a delay is lengthened by chance.")] = 0.2
    schedule: Annotated[
        list[Annotated[int, milliseconds(0, _MONTH)]] | None,
        Field(max_length=100, description="Delays one by one, in place of the five above."),
    ] = None
    max_age: Annotated[
        int | None,
        milliseconds(
            1, 365 * 86_400_000, "Dead instead of a try that would come later than this after the delivery was made."
        ),
    ] = None
