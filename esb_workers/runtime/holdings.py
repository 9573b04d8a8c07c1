"""What a process has claimed and not recorded yet: pure.

The database knows it too, but not always the same: a claim whose answer was lost is ours only there. And among what is
held there may be a row that kills whoever works on it.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Sequence
from typing import Final

from esb_workers.store.jobs import Claim, Held

#: A row that so many workers have lost may be what killed them: a process holds one such row at a time, so that the
#: innocent who were lost with it are never lost with it again, and only the guilty one comes to five.
SUSPECT: Final = 2


class Holdings:
    """Of one process. Each method is one step under the interpreter's lock, or the pump's alone."""

    def __init__(self) -> None:
        self._held: dict[Held, None] = {}
        self._suspect: Held | None = None  # the one that is under way, or was the last
        self._lost: set[Held] = set()  # begun here, and their outcomes could not be recorded

    def take(self, claims: Iterable[Claim]) -> None:
        """These are ours from now on."""
        self._held.update(dict.fromkeys(map(of, claims)))

    def let_go(self, claims: Iterable[Claim], *, lost: bool = False) -> None:
        """These are recorded, or never will be; `lost`: they were begun, and what came of them is not on record."""
        for held in map(of, claims):
            if lost:
                self._lost.add(held)
            self._held.pop(held, None)

    def begin_anew(self) -> None:
        """A new life: what the old one has lost is a sweep's."""
        self._lost.clear()

    def with_one_suspect(
        self, claims: list[Claim], choose: Callable[[Sequence[Claim]], Claim] = random.choice
    ) -> tuple[list[Claim], list[Held]]:
        """All but the suspects, and one of these unless one is under way; and the others, to be given back."""
        suspects = [claim for claim in claims if claim.losses >= SUSPECT]
        if not suspects:
            return claims, []
        kept = choose(suspects) if self._suspect not in self._held else None
        if kept is not None:
            self._suspect = of(kept)
        others = [of(claim) for claim in suspects if claim is not kept]
        return [claim for claim in claims if claim is kept or claim.losses < SUSPECT], others

    def unknown(self, listed: Sequence[Held]) -> dict[Held, bool]:
        """What of the rows that the database takes to be in our hands is not; True for what was begun here."""
        return {held: held in self._lost for held in listed if held not in self._held}

    def given_back(self, held: Iterable[Held]) -> None:
        """The database knows by now that these are not ours."""
        self._lost.difference_update(held)


def of(claim: Claim) -> Held:
    """The row of a claim, as one that is held."""
    return Held(claim.id, claim.attempt)
