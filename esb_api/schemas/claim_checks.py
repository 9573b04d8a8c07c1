"""Claim checks: large payloads that receivers fetch."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field, RootModel

from esb_api.schemas.base import Query


class ClaimCheckQuery(Query):
    """What the receipt shows."""

    token: Annotated[str, Field(max_length=200, description="Stands in the URL that the receipt gives.")]


class ClaimCheckAnswer(RootModel[Any]):
    """The payload."""
