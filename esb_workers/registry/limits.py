"""The declared limits of services, for calls that are made outside of the services' own lanes."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from esb_workers.errors import Unavailable
from esb_workers.registry.choice import NotNow
from esb_workers.registry.instances import DEFAULT_TIMEOUT, Directory
from esb_workers.store import permits
from esb_workers.store.engine import Database

#: Why a call has to wait, in the word that a held delivery shows.
LIMIT_REACHED: Final = "limit_reached"
#: Each refusal of the last second makes those that follow wait so much longer, up to LONGEST, milliseconds: however
#: many calls wait for few places, asking stays cheap.
STEP, LONGEST = 5, 2000
#: A place whose holder has died is free again after the call's own time and this, seconds.
MARGIN: Final = 10.0


class Limits:
    """Places at services. One a process; safe for threads."""

    def __init__(self, database: Database, directory: Directory, chance: Callable[[], float] = random.random) -> None:
        self._database = database
        self._directory = directory
        self._chance = chance
        self._lock = threading.Lock()
        self._refused: dict[str, tuple[float, int]] = {}  # by service: how many since when (monotonic)

    @contextmanager
    def place(self, service: str, timeout_ms: int | None) -> Iterator[NotNow | None]:
        """A place for one call, given back at the end of the block; or why there is none.

        `timeout_ms`: of the call; None: that of the service.
        """
        active = [instance for instance in self._directory.named(service) if instance.status == "active"]
        if not any(instance.limited for instance in active):
            yield None
            return
        longest = timeout_ms or max(instance.timeout or DEFAULT_TIMEOUT for instance in active)
        try:
            permit = permits.take(self._database, service, longest / 1000 + MARGIN)
        except Unavailable:
            yield NotNow(LIMIT_REACHED)
            return
        if permit.id is None:
            yield NotNow(LIMIT_REACHED, self._pause(service, permit.retry_ms or 0))
            return
        try:
            yield None
        finally:
            self._give_back(permit.id)

    def _give_back(self, permit: int) -> None:
        if permit:
            try:
                permits.give_back(self._database, permit)
            except Unavailable:
                pass  # its time runs out

    def _pause(self, service: str, least: int) -> int:
        now = time.monotonic()
        with self._lock:
            since, count = self._refused.get(service, (now, 0))
            if now - since > 1.0:
                since, count = now, count // 2
            self._refused[service] = since, count + 1
        return max(least, round(min(LONGEST, least + STEP * count) * (0.5 + self._chance())))
