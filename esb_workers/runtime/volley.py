"""Several calls under way in one thread: all are sent, then the answers are read as they come.

A thread that makes one call after the other sleeps in each of them, and finds its caches cold and the interpreter
taken whenever it wakes. Where answers come within a millisecond, that costs more than the calls do.
"""

from __future__ import annotations

import select
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Final, Generic, NamedTuple, Protocol, TypeVar, cast

#: Answers that have not come whole after this are waited for by a thread each, seconds.
PATIENCE: Final = 0.02

T = TypeVar("T")
R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)


class UnderWay(Protocol[R_co]):
    """A call that has been sent."""

    def fileno(self) -> int:
        """What is readable when an answer comes."""
        ...

    @property
    def partial(self) -> bool:
        """After a `read` without result: whether a part of the answer has come, and it may be whole soon."""
        ...

    def read(self, *, wait: bool) -> R_co | None:
        """What came of it. Without `wait`, None unless all of it is there; once it is, this is not called again."""
        ...


class Late(NamedTuple, Generic[R]):
    """Who is to have a thread of his own: the task at this position, and its call, unless that is still to be made."""

    position: int
    call: UnderWay[R] | None


def volley(
    tasks: Sequence[T], begin: Callable[[T], R | UnderWay[R] | None], patience: float = PATIENCE
) -> tuple[list[tuple[int, R]], list[Late[R]]]:
    """Begin all tasks; (position, result) of those that ended in time, and the late ones.

    `begin` answers a call under way, a result if it came to its end at once, or None for what it does not take. What
    raises an error counts as late: it will do so again where it is seen to.
    """
    ended: list[tuple[int, R]] = []
    late: list[Late[R]] = []
    waiting: dict[int, tuple[int, UnderWay[R]]] = {}
    until = time.monotonic() + patience
    for position, task in enumerate(tasks):
        # What is sent already must not wait long for the others to be; nor must a lease be outrun by them.
        begun = _or_none(begin, task) if time.monotonic() < until else None
        if begun is None:
            late.append(Late(position, None))
        elif hasattr(begun, "fileno"):
            call = cast("UnderWay[R]", begun)
            waiting[call.fileno()] = position, call
        else:
            ended.append((position, cast("R", begun)))
    deadline = time.monotonic() + patience
    poll = select.poll()
    for fd in waiting:
        poll.register(fd, select.POLLIN)
    while waiting and (left := deadline - time.monotonic()) > 0:
        for fd, _ in poll.poll(left * 1000):
            position, call = waiting[fd]
            found = _or_none(partial(call.read, wait=False))
            if found is None and call.partial:
                continue
            poll.unregister(fd)
            del waiting[fd]
            if found is None:
                late.append(Late(position, call))
            else:
                ended.append((position, found))
    return ended, late + [Late(position, call) for position, call in waiting.values()]


def _or_none(act: Callable[..., R | None], *arguments: object) -> R | None:
    try:
        return act(*arguments)
    except Exception:
        return None
