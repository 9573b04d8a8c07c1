"""`RateLimit-*`: what is left to a client, of the window nearest to empty."""

from __future__ import annotations

from flask import Response

from esb_workers.registry.quotas import RateLimit

__all__ = ["RateLimit", "add_headers"]


def add_headers(response: Response, limits: RateLimit) -> None:
    """Say in `response` how much of the quota is left, and for how long (seconds)."""
    add = response.headers.add  # which does not look for those that are there already
    add("RateLimit-Limit", str(limits.limit))
    add("RateLimit-Remaining", str(limits.remaining))
    add("RateLimit-Reset", str(limits.reset))
