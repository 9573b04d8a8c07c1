"""How far a run may go ahead of its journal: `durability` of a definition. Pure; the caller has the clock.

Strict, a run commits what has happened before each of its effects. Relaxed, it may put that off for effects that are
quick: what a crash forgets is then repeated under the same idempotency keys. A commit is a commit either way, never
one that the server has yet to write down: a worker outlives a crash of the server, and would go on with a journal
that has lost its middle.
"""

from __future__ import annotations

from typing import Final

from esb_workers.orchestration.model import Step

#: Effects that a crash may have to repeat at most: those begun since the last commit.
EFFECTS: Final = 10
#: An effect that begins later than this after the last commit is preceded by the next one, seconds.
SECONDS: Final = 0.05


def repeatable(step: Step) -> bool:
    """Whether the key of an attempt is all that a repeat of it needs. Not of what is undone later, what has an id
    made for it (a run below), or what takes something that comes once (a signal).
    """
    return step.compensate is None and not step.kind.wants_id and not step.kind.pauses


class Lead:
    """What a strand that this worker holds has begun since its last commit. Without one nothing may be put off."""

    def __init__(self) -> None:
        self._begun = 0
        self._until = 0.0  # monotonic; no effect of a fresh claim is put off: its `run.started` is to be durable
        self._patience = 0
        self._closed = True

    def committed(self, now: float, patience: int) -> None:
        """All so far is committed, with the beginning of an effect for which the lease leaves `patience` ms."""
        self._begun, self._until, self._patience, self._closed = 1, now + SECONDS, patience, False

    def close(self) -> None:
        """Something happened that must not be forgotten: the next effect is preceded by a commit."""
        self._closed = True

    def extend(self, now: float, patience: int) -> bool:
        """Whether an effect that may take `patience` ms may begin uncommitted; if so, it has begun."""
        if self._closed or self._begun >= EFFECTS or now >= self._until or patience > self._patience:
            return False
        self._begun += 1
        return True
