"""The gunicorn worker: `gthread`, whose connections that send messages sit at the desk between their requests."""

from __future__ import annotations

import select
from concurrent.futures import Future
from typing import Any, Final

from gunicorn.workers.gthread import ThreadWorker

from esb_api.desk import Desk, Why
from esb_api.front import Front

#: What `handle` answers when the connection has gone to the desk.
_SEATED: Final = object()
#: How long a thread of the pool stays with a silent connection, milliseconds.
LINGER: Final = 20


class DeskWorker(ThreadWorker):
    """`gthread`, with a desk for those who send messages, and threads that stay with a busy connection."""

    desk: Desk | None = None

    def load_wsgi(self) -> None:
        """Load the application, and open a desk for those who send messages."""
        super().load_wsgi()
        front = getattr(self.wsgi, "wsgi_app", None)
        if isinstance(front, Front) and not self.cfg.is_ssl:
            self.desk = Desk(
                front.paths, front.answer, self._left, serving=lambda: self.alive, threads=self.cfg.threads
            )

    def handle(self, conn: Any) -> Any:
        """Answer requests of `conn` until it goes to the desk or falls silent; then as the parent class says.

        A caller that sends one request after the other would otherwise cost a pipe write, two system calls of the
        poller and two changes of thread for each. A thread stays only while there are threads for all connections, so
        that nobody waits for a thread that waits.
        """
        keep = super().handle(conn)
        # `is True`: gunicorn also answers with a marker for a connection that has not spoken yet.
        while keep is True and self.alive:
            if self._may_sit(conn):
                self.desk.take(conn)  # type: ignore[union-attr]
                return _SEATED
            if self.nr_conns > self.cfg.threads or not _speaks(conn):
                break
            keep = super().handle(conn)
        return keep

    def _may_sit(self, conn: Any) -> bool:
        """Whether a connection's last request was one for the desk: its next will be, too."""
        if self.desk is None or conn.is_http2 or conn.parser.unreader.buf.getvalue():
            return False
        asked = conn.parser.mesg
        return self.desk.serves(asked.method, asked.path, (name for name, _ in asked.headers))

    def finish_request(self, conn: Any, fs: Any) -> None:
        """As the parent class, unless the connection is at the desk."""
        if not fs.cancelled() and fs.exception() is None and fs.result() is _SEATED:
            return
        super().finish_request(conn, fs)

    def _left(self, conn: Any, why: Why) -> None:
        """A connection has left the desk; called on the desk's thread."""
        if why == "wanted":
            self.enqueue_req(conn)
            return
        result: Future[bool] = Future()
        result.set_result(why == "kept")
        self.method_queue.defer(self.finish_request, conn, result)


def _speaks(conn: Any) -> bool:
    """Whether there is something to read now or within LINGER."""
    if conn.parser.unreader.buf.getvalue():
        return True
    poll = select.poll()
    poll.register(conn.sock, select.POLLIN)
    return bool(poll.poll(LINGER))
