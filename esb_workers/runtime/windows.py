"""How much of a process a lane may use: adaptive windows, pure.

A lane starts unproven. Each quick, good call widens its window by one, up to half of the slots; a failure, or a
call that is still running after `SLOW` seconds, takes it away. Proven lanes share all slots; unproven ones together
at most half, so that dead and slow destinations cannot starve the others, and a single slow one still gets on; a part
of that is for lanes without a call under way, so that what is new can begin.

A lane whose calls take a few milliseconds is swift after some of them: rows of it may be claimed ahead of free slots
(runtime.ahead), and few slots do them, several at a time, within its window. A failure or one call that takes long ends
that.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

#: A call longer than this does not prove a lane, seconds.
SLOW = 0.2
#: A lane is swift while its window is at least so wide, and its calls take less than this on average, seconds; and how
#: much the last call counts in that.
SWIFT_WIDTH: Final = 4
SWIFT: Final = 0.02
WEIGHT: Final = 1 / 8
#: So many slots work on swift lanes, each with several calls under way. One process begins some thousand calls a second
#: whatever their number, and fewer threads wait for one another less.
ABREAST: Final = 2
#: Where calls take less than this on average, seconds, one slot takes the rows of all these, if there are many: its own
#: work takes as long as they do, and code that has just run costs half of what it does cold.
BRISK: Final = 0.005


@dataclass
class _Lane:
    width: int = 0
    more: bool = False  # the last claim took all it was allowed: there may be further rows
    running: dict[str, float] = field(default_factory=dict)  # job -> when its call started
    mean: float | None = None  # what a call takes, seconds; None: nobody knows

    def proven(self, now: float) -> bool:
        if self.width == 0:
            return False
        oldest = next(iter(self.running.values()), now)
        return now - oldest <= SLOW


class LaneWindows:
    """The windows of one process. Not thread-safe: the caller holds a lock. Times are monotonic seconds."""

    def __init__(self, slots: int) -> None:
        self._slots = slots
        self._widest = max(1, slots // 2)
        self._shared = max(1, slots // 2)  # what unproven lanes may use together
        self._unproven_room = 1
        self._lanes: dict[int, _Lane] = {}

    def started(self, lane: int, job: str, now: float) -> None:
        """A call of this lane has started."""
        self._lanes.setdefault(lane, _Lane()).running[job] = now

    def finished(self, lane: int, job: str, now: float, good: bool | None, took: float | None = None) -> bool:
        """It has ended: `good` means that the destination did well, None that it was not tried.

        Answers whether the lane may have more rows.

        `took`: the call alone, seconds, if it began later than it was told to be `started`.
        """
        state = self._lanes[lane]
        began = state.running.pop(job, now)
        if good is None:
            return state.more
        if not good:
            state.width, state.mean = 0, None
            return state.more
        if now - began < SLOW:
            state.width = min(self._widest, state.width + 1)
        seconds = now - began if took is None else took
        state.mean = seconds if state.mean is None else state.mean + (seconds - state.mean) * WEIGHT
        return state.more

    def swift(self, lane: int, now: float) -> bool:
        """Whether rows of this lane may be claimed ahead."""
        state = self._lanes.get(lane)
        if state is None or state.mean is None:
            return False
        return state.width >= min(SWIFT_WIDTH, self._widest) and state.mean < SWIFT and state.proven(now)

    def brisk(self, lane: int, now: float) -> bool:
        """Whether a lane is swift, and its calls take so little that nothing is gained by a second slot."""
        mean = self._lanes[lane].mean if lane in self._lanes else None
        return mean is not None and mean < BRISK and self.swift(lane, now)

    def swift_lanes(self, now: float) -> list[int]:
        """All that are swift."""
        return [key for key in self._lanes if self.swift(key, now)]

    def swift_with_more(self, now: float) -> list[int]:
        """The swift lanes that gave all they were allowed at the last claim."""
        return [key for key, lane in self._lanes.items() if lane.more and self.swift(key, now)]

    def left(self, lane: int) -> int:
        """How many more calls of a swift lane may be under way."""
        state = self._lanes[lane]
        return state.width - len(state.running)

    def proven(self, now: float) -> dict[int, int]:
        """Room left in each proven lane."""
        return {k: max(0, lane.width - len(lane.running)) for k, lane in self._lanes.items() if lane.proven(now)}

    def unproven(self, now: float) -> tuple[int, int, dict[int, int]]:
        """For the lanes that are not proven: how many rows in all, the room of one not seen yet, room by lane.

        A quarter of their share is for lanes without a call under way, one for each: however many calls hang in a lane,
        also one that was proven and began to hang, others can still show that they are quick.
        """
        rooms: dict[int, int] = {}
        used = 0
        most = self._shared - self._shared // 4
        for key, lane in self._lanes.items():
            if lane.proven(now):
                rooms[key] = 0  # they have their own claim
            elif lane.running:
                used += min(len(lane.running), most)
                rooms[key] = max(0, self._unproven_room - len(lane.running))
        if used >= most:
            return max(0, self._shared - used), 1, dict.fromkeys(rooms, 0)
        return most - used, self._unproven_room, rooms

    def claimed(self, limit: int, room: int, rooms: Mapping[int, int], taken: Mapping[int, int]) -> None:
        """What a claim of `limit` rows took by lane, under `rooms` (and `room` for all others)."""
        for key, count in taken.items():
            self._lanes.setdefault(key, _Lane()).more = count >= rooms.get(key, room)
        if sum(taken.values()) < limit:  # nothing was left out: lanes that had room and gave nothing are empty
            for key, allowed in rooms.items():
                if allowed and key not in taken and key in self._lanes:
                    self._lanes[key].more = False

    def claimed_unproven(self, asked: int, got: int) -> None:
        """Widen the room of unproven lanes while they leave some of their share unused; narrow it when not."""
        if got < asked:
            self._unproven_room = min(self._shared, self._unproven_room * 2)
        else:
            self._unproven_room = 1
