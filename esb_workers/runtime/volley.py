"""Several calls under way in one thread: all are sent, then the answers are read as they come.

A thread that makes one call after the other sleeps in each of them, and finds its caches cold and the interpreter
taken whenever it wakes. Where answers come within a millisecond, that costs more than the calls do. For the same reason
each step is done for all calls before the next step begins: code that has just run costs half of what it does cold.
"""

from __future__ import annotations

import select
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Final, Generic, NamedTuple, Protocol, TypeVar, cast

#: Answers that have not come whole after this are waited for by a thread each, seconds.
PATIENCE: Final = 0.02

T = TypeVar("T")
R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)


class Call(Protocol[R_co]):
    """A call that is ready to be sent."""

    @property
    def ended(self) -> bool:
        """Whether `result` is there: all of the answer has come, or none will."""
        ...

    @property
    def partial(self) -> bool:
        """After `receive`, if it has not ended: whether a part of the answer has come, and it may be whole soon."""
        ...

    def send(self) -> bool:
        """Send it. False if that could take long: then nothing was sent."""
        ...

    def fileno(self) -> int:
        """What is readable when an answer comes."""
        ...

    def receive(self) -> None:
        """Take in what has come, without waiting."""
        ...

    def result(self) -> R_co:
        """What came of it; waits for that unless it has ended. The same however often it is asked."""
        ...


class Late(NamedTuple, Generic[R]):
    """Who is to have a thread of his own: the task at this position, and its call, unless that is still to be made."""

    position: int
    call: Call[R] | None


class Ended(NamedTuple, Generic[R]):
    """What came of the task at this position, and when: a monotonic moment, of its own call and not of all."""

    position: int
    result: R
    at: float


def volley(
    tasks: Sequence[T], ready: Callable[[T], R | Call[R] | None], patience: float = PATIENCE
) -> tuple[list[Ended[R]], list[Late[R]]]:
    """Make the calls of all tasks; those that ended in time, and the late ones.

    `ready` answers a call to be sent, a result if there is nothing to send, or None for what it does not take. What
    raises an error counts as late: it will do so again where it is seen to.
    """
    until = time.monotonic() + patience
    ended: list[Ended[R]] = []
    late: list[Late[R]] = []
    calls: list[tuple[int, Call[R]]] = []
    for position, task in enumerate(tasks):
        made = _or_none(ready, task)
        if made is None:
            late.append(Late(position, None))
        elif hasattr(made, "fileno"):
            calls.append((position, cast("Call[R]", made)))
        else:
            ended.append(Ended(position, cast("R", made), time.monotonic()))
    done, waiting = _sent(calls, until, late)
    done += _answered(waiting, time.monotonic() + patience, late)
    for position, call, at in done:
        found = _or_none(call.result)
        if found is None:
            late.append(Late(position, call))
        else:
            ended.append(Ended(position, found, at))
    return ended, late


_Done = tuple[int, Call[R], float]


def _sent(
    calls: Iterable[tuple[int, Call[R]]], until: float, late: list[Late[R]]
) -> tuple[list[_Done[R]], dict[int, tuple[int, Call[R]]]]:
    """Send; those that have ended by that, and those under way by what is readable when their answers come."""
    done: list[_Done[R]] = []
    waiting: dict[int, tuple[int, Call[R]]] = {}
    for position, call in calls:
        # What is sent already must not wait long for the others to be; nor must a lease be outrun by them.
        if time.monotonic() >= until or not _or_none(call.send):
            late.append(Late(position, None))
        elif call.ended:
            done.append((position, call, time.monotonic()))
        else:
            waiting[call.fileno()] = position, call
    return done, waiting


def _answered(waiting: dict[int, tuple[int, Call[R]]], deadline: float, late: list[Late[R]]) -> list[_Done[R]]:
    """Those whose answers have come in time, in that order; the others are late."""
    done: list[_Done[R]] = []
    poll = select.poll()
    for fd in waiting:
        poll.register(fd, select.POLLIN)
    while waiting and (left := deadline - time.monotonic()) > 0:
        for fd, _ in poll.poll(left * 1000):
            position, call = waiting[fd]
            _or_none(call.receive)
            if call.partial and not call.ended:
                continue
            poll.unregister(fd)
            del waiting[fd]
            if call.ended:
                done.append((position, call, time.monotonic()))
            else:
                late.append(Late(position, call))
    late += [Late(position, call) for position, call in waiting.values()]
    return done


def _or_none(act: Callable[..., R | None], *arguments: object) -> R | None:
    try:
        return act(*arguments)
    except Exception:
        return None
