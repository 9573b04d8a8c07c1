"""Places of a quota taken ahead: a client that sends fast does not ask Redis for each message.

Exact all the same. What is taken ahead has been counted in every window before it is used, so that no window ever
holds more than its limit; it is used within those very windows or given back a moment later; and there is the less of
it the less is left, so that the last thousand places of a window are taken one by one, and nobody is refused a place
that lies unused elsewhere. A client that sends now and then takes nothing ahead.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from typing import Final

from esb_workers.registry.counting import Counter, CounterAway, Limit, RateLimit, Refused, Taken

#: Places taken ahead at most, and as a part of what is left in the window nearest to empty.
MOST: Final = 64
PART: Final = 1000
#: What was taken ahead is used within this span or given back, seconds.
LIFE: Final = 0.1


@dataclass(slots=True)
class _Lease:
    taken: Taken  # the last places that were counted
    limits: tuple[Limit, ...]
    left: int
    size: int
    ends: float  # monotonic

    def use(self, places: int) -> Taken:
        self.left -= places
        nearest = self.taken.nearest
        shown = nearest._replace(remaining=nearest.remaining + self.left)
        return Taken(self.taken.client_id, places, self.taken.at, self.limits, shown, self.taken.counter)

    def rest(self) -> Taken:
        return Taken(
            self.taken.client_id, self.left, self.taken.at, self.limits, self.taken.nearest, self.taken.counter
        )


class LeasedCounter:
    """A counter that takes ahead from another. Safe for threads."""

    def __init__(self, counter: Counter) -> None:
        self._counter = counter
        self._leases: dict[str, _Lease] = {}
        self._lock = threading.Lock()
        self._some = threading.Event()
        self._thread: threading.Thread | None = None

    def take(self, client_id: str, limits: tuple[Limit, ...], places: int) -> Taken | Refused:
        """See Counter."""
        asked = time.monotonic()
        with self._lock:
            lease = self._leases.get(client_id)
            if lease is not None and lease.limits == limits:
                if lease.left >= places and asked < lease.ends:
                    return lease.use(places)
                ahead = _ahead(lease, asked)
            else:
                ahead = 0
        result = self._counter.take(client_id, limits, places + ahead)
        if isinstance(result, Refused) and ahead:
            ahead = 0
            result = self._counter.take(client_id, limits, places)
        return result if isinstance(result, Refused) else self._keep(result, places, ahead, asked)

    def give_back(self, taken: Taken) -> None:
        """See Counter."""
        self._counter.give_back(taken)

    def used(self, client_id: str, limits: tuple[Limit, ...]) -> list[RateLimit]:
        """See Counter. What is taken ahead counts as used."""
        return self._counter.used(client_id, limits)

    def close(self) -> None:
        """Give back what is taken ahead."""
        self._return(time.monotonic() + 3 * LIFE)
        self._counter.close()

    def _keep(self, taken: Taken, places: int, ahead: int, asked: float) -> Taken:
        # The counter's clock is cut to seconds: a window may end up to one earlier than its `reset` says.
        shortest = min(limit.seconds for limit in taken.limits)
        sure = shortest - taken.at % shortest - 1
        lease = _Lease(taken, taken.limits, places + ahead, ahead, asked + min(LIFE, sure))
        used = lease.use(places)
        with self._lock:
            before = self._leases.get(taken.client_id)
            self._leases[taken.client_id] = lease
        if before is not None:
            self._give_back(before)
        self._some.set()
        if self._thread is None:
            self._ensure_thread()
        return used

    def _ensure_thread(self) -> None:
        # Started late: a thread made before a fork would not exist in the child.
        with self._lock:
            if self._thread is None:
                self._thread = threading.Thread(target=self._watch, name="quota-leases", daemon=True)
                self._thread.start()

    def _watch(self) -> None:
        while self._some.wait():
            time.sleep(LIFE)
            self._return(time.monotonic())

    def _return(self, now: float) -> None:
        with self._lock:
            # For a moment longer: whoever asks next sees by it how fast the client sends.
            over = [key for key, lease in self._leases.items() if lease.ends + LIFE <= now]
            leases = [self._leases.pop(key) for key in over]
            idle = [lease for lease in self._leases.values() if lease.ends <= now]
            if not self._leases:
                self._some.clear()
        for lease in leases + idle:
            self._give_back(lease)

    def _give_back(self, lease: _Lease) -> None:
        with self._lock:
            rest, lease.left = lease.rest(), 0
        if rest.places:
            try:
                self._counter.give_back(rest)
            except CounterAway:
                pass  # they end with their windows


def _ahead(lease: _Lease, now: float) -> int:
    """How much to take ahead: twice as much when it was used up in time, half when not, nothing after a pause."""
    if now > lease.ends + LIFE:
        return 0
    size = max(1, lease.size * 2) if now < lease.ends else lease.size // 2
    return min(size, MOST, lease.taken.nearest.remaining // PART)
