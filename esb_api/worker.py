"""The gunicorn worker: `gthread`, whose busy connections sit at the desk between their requests."""

from __future__ import annotations

from concurrent.futures import Future
from typing import Any, Final

from gunicorn.workers.gthread import ThreadWorker

from esb_api.desk import Desk, Why
from esb_api.front import Front

#: What `handle` answers when the connection has gone to the desk.
_SEATED: Final = object()


class DeskWorker(ThreadWorker):
    """`gthread`: after an answer of the front door, the desk waits for what the connection asks next."""

    desk: Desk | None = None

    def load_wsgi(self) -> None:
        """Load the application, and open a desk for its front door."""
        super().load_wsgi()
        front = getattr(self.wsgi, "wsgi_app", None)
        if isinstance(front, Front) and not self.cfg.is_ssl:
            self.desk = Desk(
                front.paths, front.answer, self._left, serving=lambda: self.alive, threads=self.cfg.threads
            )

    def handle(self, conn: Any) -> Any:
        """Answer one request; then the connection sits at the desk, or goes back to the poller."""
        keep = super().handle(conn)
        # `is True`: gunicorn also answers with a marker for a connection that has not spoken yet.
        if keep is True and self.alive and self._may_sit(conn):
            self.desk.take(conn)  # type: ignore[union-attr]
            return _SEATED
        return keep

    def _may_sit(self, conn: Any) -> bool:
        return self.desk is not None and not conn.is_http2 and not conn.parser.unreader.buf.getvalue()

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
