"""Points in time on the wire: RFC 3339 in, RFC 3339 UTC with `Z` out."""

from __future__ import annotations

import re
from datetime import UTC, datetime

_RFC3339 = re.compile(r"^\d{4}-\d{2}-\d{2}[Tt ]\d{2}:\d{2}:\d{2}(\.\d+)?([Zz]|[+-]\d{2}:\d{2})$", re.ASCII)


def to_wire(moment: datetime | None) -> str | None:
    """`2026-01-31T08:00:00.123Z`, or None for None."""
    if moment is None:
        return None
    if moment.tzinfo is not UTC:
        moment = moment.astimezone(UTC)
    return moment.isoformat("T", "milliseconds")[:-6] + "Z"  # in place of +00:00


def from_wire(text: str) -> datetime:
    """Any RFC 3339 offset, answered in UTC. Raises ValueError for anything else, a date alone included."""
    if not _RFC3339.match(text):
        raise ValueError("must be an RFC 3339 timestamp with an offset, such as 2026-01-31T08:00:00Z")
    try:
        return datetime.fromisoformat(text.upper()).astimezone(UTC)
    except OverflowError as error:
        raise ValueError("is outside the range of timestamps") from error
