"""Tells a pool by NOTIFY that a row was committed for it, while little is to do.

A bell costs Celery half a millisecond at either end, and a worker that looks by itself finds a row half a look late.
NOTIFY does without both. Under load it is not given: there the workers look all the time, and a statement more for each
message would cost more than it saves.
"""

from __future__ import annotations

import time
from typing import Literal

from esb_workers.runtime.pace import Pace
from esb_workers.store import notices
from esb_workers.store.engine import Cursor
from esb_workers.store.notices import Channel

Told = Literal["routing", "delivery"]
CHANNELS: dict[Told, Channel] = {"routing": "esb_routing", "delivery": "esb_delivery"}


class Teller:
    """One a process and pool that is told. Safe for threads."""

    def __init__(self, pool: Told) -> None:
        self._channel = CHANNELS[pool]
        self._pace = Pace()

    def committed(self, cursor: Cursor, rows: int) -> None:
        """`rows` of the pool were just committed. `cursor` in autocommit; never raises."""
        now = time.monotonic()
        self._pace.note(rows, now)
        if rows and not self._pace.loaded(now):
            notices.hint(cursor, self._channel)
