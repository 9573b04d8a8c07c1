"""What may leave a group: when a collection is complete, and whose turn it is in a sequence. Pure.

Times are milliseconds. `age` is how long ago something joined its group, by the database's clock.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

#: A sequence whose first number is not known may begin with 0: a 1 that comes first waits so long for it.
GRACE: Final = 1000
#: Payload of one collection, bytes: with more it is complete.
MAX_BYTES: Final = 16 << 20


class Waiting(NamedTuple):
    """Something that waits in a group."""

    id: str
    age: int
    size: int = 0  # bytes
    last: bool = False  # it completes its collection
    number: int = 0  # its place in a sequence


class Collected(NamedTuple):
    """Collections that are complete, in order; `due`: when to look again at what is left."""

    sets: list[list[Waiting]]
    left: int
    due: int | None


class Ordered(NamedTuple):
    """What goes out, in order; the number that comes next, if any is known; when to look again at what is left."""

    send: list[str]
    next: int | None
    due: int | None


def collect(
    waiting: Sequence[Waiting],
    *,
    size: int | None,
    timeout: int,
    complete: Callable[[Sequence[Waiting]], bool] = lambda collection: False,
    more: bool = False,
) -> Collected:
    """Take what waits, in its order, into collections.

    `complete` says whether a collection is complete with its last one. `more`: there are others that were too many, or
    too large, to be looked at; then the last collection is full as it is.
    """
    sets: list[list[Waiting]] = []
    open_: list[Waiting] = []
    for one in waiting:
        if open_ and sum(other.size for other in open_) + one.size > MAX_BYTES:
            sets.append(open_)
            open_ = []
        open_.append(one)
        if len(open_) == size or one.last or complete(open_):
            sets.append(open_)
            open_ = []
    due = timeout - max((one.age for one in open_), default=0)
    if open_ and (more or due <= 0):
        sets.append(open_)
        open_ = []
    return Collected(sets, len(open_), due if open_ else 0 if more else None)


def order(waiting: Sequence[Waiting], next_: int | None, *, first: int | None, timeout: int) -> Ordered:
    """Take what is in turn. What comes too late, or twice, goes out at once: to hold it would help nobody.

    `next_` is the number that comes next, None at the beginning of a sequence.
    """
    held = sorted(waiting, key=lambda one: one.number)  # stable: of two with one number, the older first
    at = first if next_ is None else next_
    send: list[str] = []
    while held:
        lowest = held[0].number
        if at is None and lowest == 0:
            at = 0
        if at is None or lowest > at:
            patience = min(timeout, GRACE) if at is None and lowest == 1 else timeout
            due = patience - max(one.age for one in held)
            if due > 0:
                return Ordered(send, at, due)
            at = lowest
        send.append(held.pop(0).id)
        at = max(at, lowest + 1)
    return Ordered(send, at, None)
