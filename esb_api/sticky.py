"""A gunicorn worker whose threads stay with their connection for a moment after an answer.

gunicorn's own threaded worker gives a kept-alive connection back to its poller after every answer: a pipe
write, two system calls of the poller and two changes of thread for each request. A caller that sends one
request after the other on few connections, as a busy service does, pays that every time. Here the thread
first looks whether the next request comes within LINGER. It does so only while there are threads for all
connections, so that nobody waits for a thread that waits.
"""

from __future__ import annotations

import select
from typing import Any, Final

from gunicorn.workers.gthread import ThreadWorker

#: How long a thread stays with a silent connection, milliseconds.
LINGER: Final = 20


class StickyWorker(ThreadWorker):
    """`gthread`, but a thread answers what comes in quick succession on one connection."""

    def handle(self, conn: Any) -> Any:
        """Answer requests of `conn` until it falls silent; then as the parent class says."""
        keep = super().handle(conn)
        # `is True`: gunicorn also answers with a marker for a connection that has not spoken yet.
        while keep is True and self.alive and self.nr_conns <= self.cfg.threads and _speaks(conn):
            keep = super().handle(conn)
        return keep


def _speaks(conn: Any) -> bool:
    """Whether there is something to read now or within LINGER."""
    if conn.parser.unreader.buf.getvalue():
        return True
    poll = select.poll()
    poll.register(conn.sock, select.POLLIN)
    return bool(poll.poll(LINGER))
