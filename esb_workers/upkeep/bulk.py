"""Acts on many runs: carried out in chunks, by whichever scheduler comes to it; what is told stays told."""

from __future__ import annotations

import logging
import time
from typing import Final

from esb_workers.errors import Unavailable
from esb_workers.store import bulk
from esb_workers.store.engine import Database

log = logging.getLogger(__name__)

#: Runs told in one transaction.
CHUNK: Final = 50
#: The longest one tick stays at it, seconds: the other duties of the scheduler wait meanwhile.
BUDGET: Final = 1.0


def tick(database: Database) -> int:
    """Go on with every act that is not through; how many runs were told."""
    deadline = time.monotonic() + BUDGET
    with database.cursor() as cursor:
        waiting = bulk.running(cursor)
    return sum(advance(database, bulk_id, deadline) for bulk_id in waiting)


def advance(database: Database, bulk_id: str, deadline: float = 0.0) -> int:
    """Go on with one, until `deadline` (monotonic; at least one chunk); how many runs were told."""
    told, chunk = 0, CHUNK
    while True:
        try:
            with database.cursor() as cursor:
                count = bulk.step(cursor, bulk_id, chunk)
        except Unavailable:
            # Two chunks, or a chunk and runs that end, may want each other's rows; one run at a time cannot.
            if chunk == 1:
                raise
            log.info("act %s goes on run by run", bulk_id)
            chunk = 1
            continue
        told += count
        if count < chunk or time.monotonic() >= deadline:
            return told
