"""Keeps a set of child processes alive: starts them in order, restarts what dies, stops them in order.

Everything happens on the main thread: children are tied to the thread that starts them (see `launch`), and the
signals that end the supervisor arrive there.
"""

from __future__ import annotations

import math
import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType, TracebackType
from typing import Final, Self

from esb_workers.errors import EsbError
from esb_workers.node.folders import private_folder
from esb_workers.node.logfile import open_log, trim
from esb_workers.node.server import tail

_POLL: Final = 0.1  # seconds between two looks at the children
_TRIM_EVERY: Final = 10.0  # seconds between two looks at the size of their logs
_SETTLED: Final = 10.0  # seconds a child must have lived for its next restart to be immediate again
_DELAYS: Final = (0.0, 0.5, 1.0, 2.0, 3.0)  # seconds before the 1st, 2nd … restart of one that keeps dying
_ONE_AND_THE_SAME: Final = 1.0  # seconds within which signals count as one
_HOPELESS: Final = 4  # early deaths in a row that make a start fail
_STOP_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class StopRequested(Exception):
    """A signal asks the supervisor to end; raised only while it waits for a child to become ready."""


class ChildFailed(EsbError):
    """A process did not start."""

    code = "child_failed"


@dataclass(frozen=True, slots=True)
class Child:
    """One process to keep alive.

    `stage` orders the stop: lower ones are stopped first. `grace` is how long, in seconds, it may take to stop.
    `prepare` runs before each start, `ready` tells from the process id whether it is of use.
    """

    role: str
    command: Callable[[], Sequence[str]]
    stage: int
    environ: Mapping[str, str] | None = None
    #: The environment from the second start on, where that differs.
    environ_again: Mapping[str, str] | None = None
    stop_signal: signal.Signals = signal.SIGTERM
    grace: float = 10.0
    prepare: Callable[[], None] = field(default=lambda: None)
    ready: Callable[[int], bool] = field(default=lambda pid: True)

    @property
    def log_name(self) -> str:
        return self.role.replace(" ", "-") + ".log"


class _Running:
    """A child's process, and what its past says about when to start it again."""

    def __init__(self, child: Child) -> None:
        self.child = child
        self.process: subprocess.Popen[bytes] | None = None
        self.started_at = 0.0
        self.due_at = 0.0
        self.starts = 0
        self.quick_deaths = 0

    def spawn(self, log: Path) -> None:
        self.child.prepare()
        environ = self.child.environ if self.starts == 0 else self.child.environ_again or self.child.environ
        with open_log(log) as file:
            # A session of its own keeps a terminal's Ctrl-C from every child at once: the order matters.
            self.process = subprocess.Popen(
                self.child.command(),
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
                env=None if environ is None else dict(environ),
                start_new_session=True,
            )
        self.starts += 1
        self.started_at = time.monotonic()

    def bury(self) -> str:
        """Take note of the process's death; returns how it died."""
        process = self.process
        assert process is not None
        self.sweep()
        self.process = None
        lived = time.monotonic() - self.started_at
        self.quick_deaths = self.quick_deaths + 1 if lived < _SETTLED else 0
        delay = _DELAYS[min(self.quick_deaths, len(_DELAYS) - 1)]
        self.due_at = time.monotonic() + delay
        return how_it_ended(process.returncode)

    def sweep(self) -> None:
        """Kill what the dead process may have left in its session."""
        if self.process is not None:
            try:
                os.killpg(self.process.pid, signal.SIGKILL)
            except (ProcessLookupError, PermissionError):
                pass


class Supervisor:
    """The children of one machine. Used as a context manager; leaving it stops them."""

    def __init__(self, log_folder: Path, say: Callable[[str], None]) -> None:
        self._log_folder = private_folder(log_folder)
        self._say = say
        self._children: list[_Running] = []
        self._signals = 0
        self._signalled_at = -math.inf
        self._previous: dict[signal.Signals, object] = {}
        self._trimmed_at = time.monotonic()

    def __enter__(self) -> Self:
        for number in _STOP_SIGNALS:
            if signal.getsignal(number) is not signal.SIG_IGN:  # as `nohup` sets it for SIGHUP
                self._previous[number] = signal.signal(number, self._on_signal)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
        for number, handler in self._previous.items():
            signal.signal(number, handler)  # type: ignore[arg-type]

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        # One Ctrl-C may arrive twice, from the terminal and from whoever started this; only a later one is impatience.
        if time.monotonic() - self._signalled_at > _ONE_AND_THE_SAME:
            self._signals += 1
        self._signalled_at = time.monotonic()

    @property
    def stopping(self) -> bool:
        """Whether a signal has asked for the end."""
        return self._signals > 0

    def hopeless(self) -> str | None:
        """The role of a child that dies again and again, if there is one."""
        return next((r.child.role for r in self._children if r.quick_deaths >= _HOPELESS), None)

    def log_of(self, role: str) -> Path:
        """Where a child's output goes."""
        return next(self._log_folder / r.child.log_name for r in self._children if r.child.role == role)

    def pids(self) -> dict[str, int]:
        """The process id of each child that runs, by role."""
        return {r.child.role: r.process.pid for r in self._children if r.process is not None}

    def start(self, child: Child) -> None:
        """Start a child without waiting for it."""
        running = _Running(child)
        running.spawn(self._log_folder / child.log_name)
        self._children.append(running)

    def start_and_wait(self, child: Child, seconds: float) -> None:
        """Start a child and wait until it is ready. Raises ChildFailed with the end of its log, StopRequested."""
        self.start(child)
        running = self._children[-1]

        def settled() -> bool:
            process = running.process
            return process is None or process.poll() is not None or child.ready(process.pid)

        self.wait_for(settled, seconds)
        process = running.process
        if process is None or process.poll() is not None or not child.ready(process.pid):
            self._children.remove(running)
            self._end(running, kill=True)
            log = self._log_folder / child.log_name
            raise ChildFailed(f"{child.role} did not start; the end of {log}:\n{tail(log)}")

    def wait_for(self, condition: Callable[[], bool], seconds: float, *, tend: bool = False) -> bool:
        """Wait until `condition` holds, restarting what dies if `tend`. False after `seconds`; StopRequested."""
        deadline = time.monotonic() + seconds
        while not condition():
            if self.stopping:
                raise StopRequested
            if time.monotonic() > deadline:
                return False
            if tend:
                self.tend()
            time.sleep(_POLL / 2)
        return True

    def watch(self, until: Callable[[], bool] = lambda: False) -> None:
        """Keep the children alive until a signal comes or `until` holds."""
        while not self.stopping and not until():
            self.tend()
            time.sleep(_POLL)

    def tend(self) -> None:
        """One look at every child: bury what died, start what is due."""
        now = time.monotonic()
        for running in self._children:
            if running.process is not None and running.process.poll() is not None:
                role, how = running.child.role, running.bury()
                self._say(f"{role} ended ({how}); starting it again")
            if running.process is None and now >= running.due_at:
                self._respawn(running)
        if now - self._trimmed_at > _TRIM_EVERY:
            self._trimmed_at = now
            for running in self._children:
                trim(self._log_folder / running.child.log_name)

    def _respawn(self, running: _Running) -> None:
        try:
            running.spawn(self._log_folder / running.child.log_name)
        except (EsbError, OSError, subprocess.SubprocessError) as error:
            running.quick_deaths += 1
            running.due_at = time.monotonic() + _DELAYS[-1]
            self._say(f"{running.child.role} cannot be started again: {error}")

    def stop(self) -> None:
        """Stop the children stage by stage; a second signal cuts the graces short."""
        heeded = self._signals
        for stage in sorted({running.child.stage for running in self._children}):
            self._stop_stage([r for r in self._children if r.child.stage == stage], heeded)
        self._children.clear()

    def _stop_stage(self, stage: Sequence[_Running], heeded: int) -> None:
        alive = [running for running in stage if running.process is not None and running.process.poll() is None]
        for running in alive:
            self._signal(running)
        started = time.monotonic()
        while alive:
            alive = [r for r in alive if r.process is not None and r.process.poll() is None]
            for running in alive:
                if self._signals > heeded or time.monotonic() - started > running.child.grace:
                    self._say(f"{running.child.role} does not stop; it is killed")
                    self._end(running, kill=True)
            time.sleep(0.02)
        for running in stage:
            running.sweep()

    @staticmethod
    def _signal(running: _Running) -> None:
        if running.process is not None:
            running.process.send_signal(running.child.stop_signal)

    @staticmethod
    def _end(running: _Running, *, kill: bool) -> None:
        process = running.process
        if process is None:
            return
        if kill and process.poll() is None:
            process.kill()
        process.wait()
        running.sweep()
        running.process = None


def how_it_ended(code: int) -> str:
    """An exit status for people: `exit code 1`, `SIGKILL`."""
    if code >= 0:
        return f"exit code {code}"
    try:
        return signal.Signals(-code).name
    except ValueError:
        return f"signal {-code}"
