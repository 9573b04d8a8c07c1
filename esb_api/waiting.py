"""`Prefer: wait=SECONDS`: requests that wait for a final state, and how many of them a process holds at once."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

MOST: Final = 30
_WAIT: Final = re.compile(r"(?:^|[,;])\s*wait\s*=\s*\"?(\d{1,9})\"?\s*(?:$|[,;])", re.IGNORECASE | re.ASCII)


def wanted_wait(prefer: str | None) -> int | None:
    """The seconds asked for, at most 30; None if the header asks for no wait (RFC 7240: then it is ignored)."""
    match = _WAIT.search(prefer) if prefer else None
    return min(int(match[1]), MOST) if match else None


class Waiting:
    """Places for waiting requests: half of the threads, so that the other half always serves."""

    def __init__(self, places: int) -> None:
        self._places = threading.BoundedSemaphore(places) if places > 0 else None

    @contextmanager
    def place(self) -> Iterator[bool]:
        """Whether there is a place; it is given back at the end of the block."""
        taken = self._places is not None and self._places.acquire(blocking=False)
        try:
            yield taken
        finally:
            if taken and self._places is not None:
                self._places.release()
