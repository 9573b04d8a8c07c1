"""`esb up` as its users meet it: real processes, real signals, real kills."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from esb_api.client import Client

Eventually = Callable[..., None]

_ESB = [sys.executable, "-m", "esb_api.cli"]


@dataclass
class Bus:
    """An `esb up` that has said it is up."""

    process: subprocess.Popen[str]
    data_dir: Path
    said: list[str]

    @property
    def url(self) -> str:
        return str(json.loads((self.data_dir / "addresses.json").read_text())["api"])

    def client(self) -> Client:
        return Client(self.url, (self.data_dir / "admin-key").read_text().strip())

    def descendants(self) -> list[psutil.Process]:
        return psutil.Process(self.process.pid).children(recursive=True)

    def pid_of(self, role: str) -> int | None:
        """The direct child that has these words in its command line."""
        for child in psutil.Process(self.process.pid).children():
            try:
                if role in " ".join(child.cmdline()):
                    return child.pid
            except psutil.NoSuchProcess:
                continue
        return None

    def stop(self, number: int = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        self.said += self.process.communicate(timeout=90)[0].splitlines()
        return self.process.returncode


def start(data_dir: Path, *arguments: str) -> Bus:
    process = subprocess.Popen(
        [*_ESB, "up", "--port", "0", "--no-flower", "--data-dir", str(data_dir), *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=data_dir.parent,
    )
    assert process.stdout is not None
    said = []
    for line in process.stdout:
        said.append(line.rstrip())
        if line.startswith("The bus is up"):
            return Bus(process, data_dir, said)
    process.wait()
    raise AssertionError("esb up ended: " + "\n".join(said))


@pytest.fixture(scope="module")
def bus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bus]:
    running = start(tmp_path_factory.mktemp("up") / "data")
    yield running
    if running.process.poll() is None:
        running.stop()
    running.process.stdout.close()  # type: ignore[union-attr]


def works(bus: Bus) -> bool:
    """Whether the bus is ready, with one worker in each pool."""
    try:
        with bus.client() as client:
            health = client.health()
    except Exception:
        return False
    return health.get("status") == "ok" and all(n >= 1 for n in health["workers"].values())


def test_it_says_which_database_it_uses_and_why(bus: Bus) -> None:
    assert any(line.startswith("Database: embedded PostgreSQL 18") and "ESB_DATABASE_URL" in line for line in bus.said)


def test_the_operator_key_is_shown_on_the_first_start_and_kept_for_its_owner_alone(bus: Bus) -> None:
    kept = bus.data_dir / "admin-key"
    assert kept.stat().st_mode & 0o777 == 0o600
    assert any(kept.read_text().strip() in line for line in bus.said)


@pytest.mark.parametrize(
    "role", ["worker routing", "worker delivery", "worker orchestration", "worker health", "scheduler"]
)
def test_each_process_shows_its_role_in_its_command_line(bus: Bus, role: str) -> None:
    assert bus.pid_of(role) is not None


def test_everything_it_runs_is_its_descendant(bus: Bus) -> None:
    names = " ".join(" ".join(p.cmdline()) for p in bus.descendants())
    assert "postgres" in names and "valkey-server" in names


def test_a_second_up_on_the_same_directory_is_refused_with_the_reason(bus: Bus) -> None:
    second = subprocess.run(
        [*_ESB, "up", "--port", "0", "--data-dir", str(bus.data_dir)], capture_output=True, text=True, check=False
    )
    assert second.returncode == 1
    assert f"in use by process {bus.process.pid}" in second.stderr


def test_a_port_in_use_is_refused_with_the_reason(bus: Bus, tmp_path: Path) -> None:
    port = bus.url.rpartition(":")[2]
    other = subprocess.run(
        [*_ESB, "up", "--port", port, "--data-dir", str(tmp_path / "d")], capture_output=True, text=True, check=False
    )
    assert other.returncode == 1
    assert f"port {port}" in other.stderr


def test_doctor_finds_it_healthy(bus: Bus) -> None:
    doctor = subprocess.run(
        [*_ESB, "doctor", "--json"],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "ESB_DATA_DIR": str(bus.data_dir)},
    )
    assert json.loads(doctor.stdout)["healthy"] is True, doctor.stdout
    assert doctor.returncode == 0


@pytest.mark.parametrize("role", ["worker delivery", "scheduler", "valkey-server", "postgres", "api"])
def test_what_is_killed_is_back_within_seconds(bus: Bus, role: str, eventually: Eventually) -> None:
    killed = bus.pid_of(role)
    assert killed is not None
    os.kill(killed, signal.SIGKILL)
    eventually(lambda: bus.pid_of(role) not in (None, killed), seconds=10)
    eventually(lambda: works(bus), seconds=15)


def test_two_buses_run_side_by_side_and_a_clean_stop_leaves_no_process(bus: Bus, tmp_path: Path) -> None:
    other = start(tmp_path / "other")
    assert works(other) and works(bus) and other.url != bus.url
    left = other.descendants()
    assert other.stop(signal.SIGINT) == 0
    assert not [p for p in left if p.is_running() and p.status() != psutil.STATUS_ZOMBIE]
    assert works(bus)


def test_killed_itself_it_leaves_no_orphan_and_starts_again_with_the_same_key(bus: Bus, eventually: Eventually) -> None:
    key = (bus.data_dir / "admin-key").read_text()
    left = bus.descendants()
    assert len(left) > 8
    bus.process.kill()
    bus.process.wait()
    started = time.monotonic()
    again = start(bus.data_dir)
    assert time.monotonic() - started < 60
    eventually(lambda: not [p for p in left if p.is_running() and p.status() != psutil.STATUS_ZOMBIE], seconds=10)
    assert works(again)
    assert (bus.data_dir / "admin-key").read_text() == key
    assert not any(key.strip() in line for line in again.said)
    assert again.stop() == 0
    again.process.stdout.close()  # type: ignore[union-attr]
