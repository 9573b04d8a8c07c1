"""`esb api`: gunicorn around the WSGI application, configured from the settings alone."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from gunicorn.app.base import BaseApplication
from gunicorn.glogging import Logger
from prometheus_client import multiprocess

from esb_workers import drill, garbage, logs
from esb_workers.settings import Settings

#: Connections waiting in memory: the heartbeat file of a worker must not wait for a busy disk.
_MEMORY: Final = "/dev/shm"


class PlainLogger(Logger):
    """Leaves gunicorn's lines to the root logger, so that they have the shape of all others."""

    def setup(self, cfg: Any) -> None:
        super().setup(cfg)
        self.error_log.handlers.clear()
        self.error_log.propagate = True


class Server(BaseApplication):
    """gunicorn without its own command line, configuration files and environment."""

    def __init__(self, settings: Settings, make_app: Callable[[Settings], Any]) -> None:
        self._settings = settings
        self._make_app = make_app
        super().__init__()

    def load_config(self) -> None:
        for name, value in self.options().items():
            if name in self.cfg.settings:  # releases differ
                self.cfg.set(name, value)

    def options(self) -> dict[str, Any]:
        settings = self._settings
        host = f"[{settings.api_host}]" if ":" in settings.api_host else settings.api_host
        return {
            "bind": f"{host}:{settings.api_port}",
            "workers": settings.api_processes,
            "worker_class": "esb_api.worker.DeskWorker",
            "threads": settings.api_threads,
            "timeout": 60,  # seconds without a heartbeat before a worker process is replaced
            "graceful_timeout": 30,  # seconds; as long as the longest `Prefer: wait`
            "keepalive": 30,  # seconds
            "proc_name": "esb api",
            "loglevel": "warning",
            "logger_class": PlainLogger,
            "worker_tmp_dir": _MEMORY if os.access(_MEMORY, os.W_OK) else None,
            "control_socket_disable": True,  # it would lie in the home directory
            "limit_request_line": 8190,
            "post_fork": self._arm,
            "child_exit": _forget_process,
        }

    def _arm(self, _server: Any, worker: Any) -> None:
        """Fault drills only: the first processes die at the label, and those that replace them do not."""
        if worker.age <= self._settings.api_processes:
            drill.arm(self._settings.crash_at)

    def load(self) -> Any:
        """The application, made in each worker process after the fork: it holds connections."""
        app = self._make_app(self._settings)
        garbage.settle()
        return app


def _forget_process(server: Any, worker: Any) -> None:
    multiprocess.mark_process_dead(worker.pid)  # type: ignore[no-untyped-call]


def serve(settings: Settings, make_app: Callable[[Settings], Any]) -> None:
    """Serve until told to end."""
    logs.configure("api", log_format=settings.log_format, level=settings.log_level)
    # Where the processes add up their request figures. A folder of this server's life: figures begin anew with it.
    folder = tempfile.mkdtemp(prefix="metrics-", dir=_scratch(settings))
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = folder
    master = os.getpid()
    try:
        Server(settings, make_app).run()
    finally:
        # A forked process that ends comes by here, too, while the others still write: not a TemporaryDirectory.
        if os.getpid() == master:
            shutil.rmtree(folder, ignore_errors=True)


def _scratch(settings: Settings) -> Path | None:
    """`tmp` in the data directory; the system's own where that cannot be written, as in a read-only container."""
    folder = settings.data_dir / "tmp"
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError:
        return None
    return folder if os.access(folder, os.W_OK) else None
