"""An event that one thread waits for, together with what comes in on a descriptor."""

from __future__ import annotations

import os
import select
from typing import Final

#: What poll(2) is given when there is no descriptor to look at.
NOTHING: Final = -1


def _milliseconds(seconds: float) -> int:
    """poll(2) knows no less, and Python would round up: a look after 1.1 ms would be one after 2."""
    return max(1, round(seconds * 1000)) if seconds > 0 else 0


class Wakeup:
    """Set from any thread, waited for by one.

    `threading.Event` cannot be waited for together with a socket, and a thread in between that reads the socket would
    have to be waked first.
    """

    def __init__(self) -> None:
        self._is_set = False
        self._waits = False
        self._bell = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._other = NOTHING
        self._poll = select.poll()  # and not `select`, which knows only the first 1024 descriptors
        self._poll.register(self._bell, select.POLLIN)

    def __del__(self) -> None:
        os.close(self._bell)

    def is_set(self) -> bool:
        """Whether it is set."""
        return self._is_set

    def set(self) -> None:
        """Wake who waits, or who waits next."""
        # In this order, and the other way round in `wait`: one of the two always sees the other.
        self._is_set = True
        if self._waits:
            os.eventfd_write(self._bell, 1)

    def clear(self) -> None:
        """What follows is not to be waked by what was set before."""
        self._is_set = False

    def wait(self, seconds: float, other: int = NOTHING) -> bool:
        """Until it is set, something can be read from `other`, or so many seconds are over; whether it can be read.

        May return early: for a `set` that the wait before had seen already.
        """
        self._look_at(other)
        self._waits = True
        try:
            ready = () if self._is_set else self._poll.poll(_milliseconds(seconds))
        finally:
            self._waits = False
        for descriptor, _ in ready:
            if descriptor == self._bell:
                os.eventfd_read(self._bell)
        return any(descriptor == other for descriptor, _ in ready)

    def _look_at(self, other: int) -> None:
        if other == self._other:
            return
        if self._other != NOTHING:
            self._poll.unregister(self._other)
        if other != NOTHING:
            self._poll.register(other, select.POLLIN)
        self._other = other
