"""Tells a pool that a row was committed for it, while little is to do.

A bell costs Celery half a millisecond at either end, and a worker that looks by itself finds a row half a look late.
A word over Redis, or by NOTIFY, does without both. Under load it is not given: there the workers look all the time.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Final, Literal

from esb_workers.runtime.hints import Voice
from esb_workers.runtime.pace import Pace
from esb_workers.store import notices
from esb_workers.store.engine import Cursor
from esb_workers.store.notices import Channel

Told = Literal["routing", "delivery"]
CHANNELS: Final[Mapping[str, Channel]] = {"routing": "esb_routing", "delivery": "esb_delivery"}


class Teller:
    """One a process and pool that is told. Safe for threads."""

    def __init__(self, pool: Told, voice: Voice) -> None:
        self._voice = voice
        self._channel = CHANNELS[pool]
        self._pace = Pace()

    def committed(self, cursor: Cursor, rows: int) -> None:
        """`rows` of the pool were just committed. `cursor` in autocommit; never raises."""
        now = time.monotonic()
        self._pace.note(rows, now)
        if rows and not self._pace.loaded(now) and not self._voice.say(self._channel):
            notices.hint(cursor, self._channel)
