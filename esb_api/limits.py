"""`RateLimit-*`: what is left to a client, of the window nearest to empty."""

from __future__ import annotations

from flask import Response

from esb_workers.registry.quotas import RateLimit

__all__ = ["RateLimit", "add_headers"]


def add_headers(response: Response, limits: RateLimit) -> None:
    """Say in `response` how much of the quota is left, and for how long (seconds)."""
    response.headers["RateLimit-Limit"] = str(limits.limit)
    response.headers["RateLimit-Remaining"] = str(limits.remaining)
    response.headers["RateLimit-Reset"] = str(limits.reset)
