"""The supervisor: children are started, kept alive and stopped in order, and never outlive it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from esb_workers.node.launch import tied
from esb_workers.node.server import is_alive
from esb_workers.node.supervisor import Child, ChildFailed, StopRequested, Supervisor, how_it_ended

Eventually = Callable[..., None]

_SLEEP = ["/bin/sleep", "60"]


def _child(role: str, command: list[str] | None = None, stage: int = 0, **more: object) -> Child:
    return Child(role, lambda: tied(command or _SLEEP, signal.SIGKILL), stage=stage, **more)  # type: ignore[arg-type]


def _python(code: str) -> list[str]:
    return [sys.executable, "-I", "-S", "-c", code]


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def supervisor(tmp_path: Path, said: list[str]) -> Supervisor:
    return Supervisor(tmp_path / "logs", said.append)


def test_a_killed_child_is_started_again(supervisor: Supervisor, said: list[str]) -> None:
    with supervisor:
        supervisor.start(_child("worker delivery"))
        first = supervisor.pids()["worker delivery"]
        os.kill(first, signal.SIGKILL)
        supervisor.wait_for(lambda: supervisor.pids().get("worker delivery", first) != first, 5, tend=True)
        second = supervisor.pids()["worker delivery"]
        assert second != first and is_alive(second)
    assert said == ["worker delivery ended (SIGKILL); starting it again"]


def test_leaving_it_stops_every_child(supervisor: Supervisor) -> None:
    with supervisor:
        for role in ("api", "scheduler"):
            supervisor.start(_child(role))
        pids = list(supervisor.pids().values())
    assert not any(is_alive(pid) for pid in pids)


def test_lower_stages_have_ended_before_higher_ones_are_told(supervisor: Supervisor, tmp_path: Path) -> None:
    log = tmp_path / "order"
    code = "import signal, sys, time\ndef end(*_):\n    time.sleep({}); open({!r}, 'a').write({!r}); sys.exit()\nsignal.signal(15, end); print('up', flush=True); time.sleep(60)"
    with supervisor:
        for stage, (name, slow) in enumerate([("a", 0.3), ("b", 0.1), ("c", 0.0)]):
            child = _child(name, _python(code.format(slow, str(log), name)), stage)
            supervisor.start_and_wait(_ready_when_up(child, tmp_path), 10)
    assert log.read_text() == "abc"


def _ready_when_up(child: Child, tmp_path: Path) -> Child:
    log = tmp_path / "logs" / child.log_name
    return Child(child.role, child.command, stage=child.stage, ready=lambda pid: "up" in log.read_text())


def test_a_child_that_ignores_the_signal_is_killed_after_its_grace(supervisor: Supervisor, tmp_path: Path) -> None:
    deaf = _child(
        "deaf",
        _python("import signal, time; signal.signal(15, signal.SIG_IGN); print('up', flush=True); time.sleep(60)"),
    )
    with supervisor:
        child = _ready_when_up(deaf, tmp_path)
        supervisor.start_and_wait(Child(child.role, child.command, stage=0, grace=0.2, ready=child.ready), 10)
        pid = supervisor.pids()["deaf"]
    assert not is_alive(pid)


def test_what_a_dead_child_left_in_its_session_is_swept_away(
    supervisor: Supervisor, eventually: Eventually, tmp_path: Path
) -> None:
    left = tmp_path / "left"
    code = f"import subprocess, time; open({str(left)!r}, 'w').write(str(subprocess.Popen(['/bin/sleep', '60']).pid)); time.sleep(60)"
    with supervisor:
        supervisor.start(_child("api", _python(code)))
        eventually(lambda: left.exists() and left.read_text())
        grandchild = int(left.read_text())
        os.kill(supervisor.pids()["api"], signal.SIGKILL)
        supervisor.wait_for(lambda: not is_alive(grandchild), 5, tend=True)
        assert not is_alive(grandchild)


def test_one_that_keeps_dying_is_started_ever_more_slowly_and_reported_hopeless(supervisor: Supervisor) -> None:
    with supervisor:
        supervisor.start(_child("api", ["/bin/false"]))
        assert supervisor.wait_for(lambda: supervisor.hopeless() == "api", 20, tend=True)


def test_a_child_that_does_not_start_is_an_error_with_the_end_of_its_log(supervisor: Supervisor) -> None:
    with supervisor, pytest.raises(ChildFailed, match="no such luck"):
        supervisor.start_and_wait(
            _child("postgres", _python("import sys; sys.exit('no such luck')"), ready=lambda pid: False), 10
        )


def test_a_signal_ends_the_watch(supervisor: Supervisor) -> None:
    with supervisor:
        supervisor.start(_child("api"))
        os.kill(os.getpid(), signal.SIGTERM)
        supervisor.watch()
        assert supervisor.stopping
        with pytest.raises(StopRequested):
            supervisor.wait_for(lambda: False, 5)
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_children_die_with_a_supervisor_that_is_killed(tmp_path: Path, eventually: Eventually) -> None:
    code = f"""
import signal, sys
from pathlib import Path
from esb_workers.node.launch import tied
from esb_workers.node.supervisor import Child, Supervisor
with Supervisor(Path({str(tmp_path)!r}), print) as s:
    for role in ("api", "worker delivery"):
        s.start(Child(role, lambda: tied(["/bin/sleep", "60"], signal.SIGKILL), stage=0))
    print(*s.pids().values(), flush=True)
    s.watch()
"""
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    pids = [int(word) for word in parent.stdout.readline().split()]
    assert len(pids) == 2 and all(is_alive(pid) for pid in pids)
    parent.kill()
    parent.wait()
    parent.stdout.close()
    eventually(lambda: not any(is_alive(pid) for pid in pids))


def test_a_crash_point_is_armed_for_the_first_life_only(supervisor: Supervisor, tmp_path: Path) -> None:
    lives = tmp_path / "lives"
    code = f"import os, time; open({str(lives)!r}, 'a').write(os.environ.get('CRASH', '-')); os.environ.get('CRASH') and os._exit(9); time.sleep(60)"
    child = Child("api", lambda: _python(code), stage=0, environ={"CRASH": "c"}, environ_again={"A": "b"})
    with supervisor:
        supervisor.start(child)
        supervisor.wait_for(lambda: lives.exists() and lives.read_text() == "c-", 10, tend=True)
    assert lives.read_text() == "c-"


@pytest.mark.parametrize(
    ("code", "words"), [(0, "exit code 0"), (3, "exit code 3"), (-9, "SIGKILL"), (-99, "signal 99")]
)
def test_how_it_ended(code: int, words: str) -> None:
    assert how_it_ended(code) == words


def test_a_log_that_grew_too_long_is_set_aside_while_its_writer_goes_on(tmp_path: Path) -> None:
    from esb_workers.node.logfile import open_log, trim

    path = tmp_path / "api.log"
    with open_log(path) as log:
        log.write(b"old\n")
        log.flush()
        trim(path, limit=2)
        log.write(b"new\n")
    assert path.read_bytes() == b"new\n"
    assert path.with_name("api.log.1").read_bytes() == b"old\n"
    assert time.time() - path.stat().st_mtime < 60
