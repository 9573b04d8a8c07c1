"""Replays of dead letters: their items go out at the rate that was asked for.

Any number of schedulers may tick: a step locks its replay and passes by one that is locked.
"""

from __future__ import annotations

import time

from esb_workers.store import jobs, message_log, replays
from esb_workers.store.engine import Database

#: Items sent in one transaction.
CHUNK = 500
#: At a rate, a tick plans the items of this many seconds, each with its own moment: longer than the time
#: between two ticks, so that the rate holds however unevenly they come.
AHEAD = 5.0
#: The longest one tick stays at it, seconds: the other duties of the scheduler wait meanwhile.
BUDGET = 1.0


def tick(database: Database) -> int:
    """Send what is due of every running replay; how many deliveries were taken up again."""
    deadline = time.monotonic() + BUDGET
    with database.cursor() as cursor:
        waiting = replays.running(cursor)
    return sum(advance(database, replay_id, deadline) for replay_id in waiting)


def advance(database: Database, replay_id: str, deadline: float = 0.0) -> int:
    """Send what is due of one replay, until `deadline` (monotonic; at least one chunk); how many were taken up."""
    sent = 0
    while True:
        with database.cursor() as cursor:
            step = replays.step(cursor, replay_id, CHUNK, AHEAD)
            for lane_id, delivery_id in step.first.items():
                message_log.let_probe(cursor, lane_id, delivery_id)
            jobs.promote(cursor, step.keys)
        sent += step.sent
        if step.handled < CHUNK or time.monotonic() >= deadline:
            return sent
