"""Drills on the database: restarted, hung, out of disk, out of connections. What was promised is kept; the rest is a 503."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import psycopg2

from tests.drills.catalogue import drill
from tests.drills.footprint import Footprint
from tests.drills.report import NotRun
from tests.drills.scene import LEASE, SWEEP, Scene, need_root
from tests.drills.workload import Plan

#: From the database's return until everyone has found it again, seconds.
RECONNECT = 5.0


@drill(
    7,
    "database-restart",
    "the database crashed and hung under load: clean 503s, no promise broken, all back within 5 s of its return",
)
def database_restart(scene: Scene) -> None:
    scene.start_bus()
    scene.warm_up()
    before = Footprint.of(scene)
    with scene.load(Plan(per_second=40)) as load:
        for _ in range(1 if scene.quick else 3):
            time.sleep(1.0)
            postmaster(scene).send_signal(
                signal.SIGQUIT
            )  # as `pg_ctl -m immediate`: sessions are dropped, the log is replayed
            returned = returned_at(scene)
            _accepts_again(scene, load, returned)
        scene.healed()
        time.sleep(1.0)
    scene.settle(within=LEASE + SWEEP + 5)
    with scene.load(Plan(per_second=40)) as load:
        time.sleep(1.0)
        with _frozen(postmaster(scene)):
            time.sleep(5 if scene.quick else 30)
        returned = time.monotonic()
        scene.healed()
        _accepts_again(scene, load, returned)
        time.sleep(1.0)
    scene.settle(within=LEASE + SWEEP + 5)
    before.compare(scene)


@drill(
    10,
    "disk-full",
    "a full disk under the database and the broker: 503s and no half acceptance; when there is room again all goes on",
)
def disk_full(scene: Scene) -> None:
    need_root("a disk of its own")
    disk = scene.folder / "bus"
    disk.mkdir()
    _mount(scene, disk, "768m")
    scene.start_bus()
    scene.warm_up()
    filler = disk / "filler"
    with scene.load(Plan(per_second=40)) as load:
        for _ in range(1 if scene.quick else 2):
            _fill(filler)
            scene.wait(
                lambda: any(s.tries[-1].status == 503 for s in list(load.sent)[-20:]), 60, "a refusal for want of room"
            )
            time.sleep(2.0)
            filler.unlink()
            returned = returned_at(scene)
            _accepts_again(scene, load, returned, within=20.0)  # its supervisor waits between starts that fail
        scene.healed()
        time.sleep(1.0)
    scene.settle(within=LEASE + SWEEP + 15)


@drill(
    19,
    "no-connections",
    "a foreign client that takes every connection of the database: 503s, and recovery when it lets go",
)
def no_connections(scene: Scene) -> None:
    scene.start_bus()
    scene.warm_up()
    before = Footprint.of(scene)
    with scene.load(Plan(per_second=40)) as load:
        with _hog(scene) as held:
            scene.wait(
                lambda: any(s.tries[-1].status == 503 for s in list(load.sent)[-20:]),
                30,
                "a refusal for want of connections",
            )
            time.sleep(3.0)
            scene.result.notes.append(f"held {len(held)} connections")
        returned = time.monotonic()
        scene.healed()
        _accepts_again(scene, load, returned)
        time.sleep(1.0)
    scene.settle(within=LEASE + SWEEP + 5)
    before.compare(scene)


# --- what they share -------------------------------------------------------------------------------------


def postmaster(scene: Scene) -> psutil.Process:
    """The embedded server's first process: the one that is not another one's child."""
    servers = [p for p in scene.bus.processes("postgres") if p.name() == "postgres"]
    pids = {p.pid for p in servers}
    (found,) = (p for p in servers if p.ppid() not in pids)
    return found


def returned_at(scene: Scene) -> float:
    """Wait until the database takes connections; that moment."""

    def there() -> bool:
        try:
            return scene.sql("select not pg_is_in_recovery()")[0][0] is True
        except psycopg2.Error:
            return False

    time.sleep(0.2)
    scene.wait(there, 60, "the database's return")
    return time.monotonic()


def _accepts_again(scene: Scene, load: object, returned: float, within: float = RECONNECT) -> None:
    """From `returned` on, all senders get a 202 again within the time."""

    def accepted() -> float | None:
        tries = [t for s in list(load.sent)[-80:] for t in s.tries if t.ended > returned and t.status == 202]  # type: ignore[attr-defined]
        return min((t.ended for t in tries), default=None)

    first = scene.wait(accepted, 60, "the first 202 after the database's return")
    scene.result.notes.append(f"accepts {first - returned:.1f} s after its return")
    scene.require(
        first - returned <= within, "I7 API", f"the first 202 came {first - returned:.1f} s after the database's return"
    )


@contextmanager
def _frozen(postmaster: psutil.Process) -> Iterator[None]:
    """SIGSTOP to the whole server: connections stay, nothing answers."""
    family = [postmaster, *postmaster.children(recursive=True)]
    for process in family:
        process.suspend()
    try:
        yield
    finally:
        for process in family:
            process.resume()


def _mount(scene: Scene, folder: Path, size: str) -> None:
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size},mode=0755", "drill", str(folder)],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise NotRun(f"no tmpfs can be mounted: {done.stderr.strip()}")
    # Entered first, so left last: after the bus has stopped.
    scene.stack.callback(lambda: subprocess.run(["umount", "-l", str(folder)], check=False))


def _fill(file: Path) -> None:
    """Take all room that is left."""
    with file.open("wb", buffering=0) as out:
        block = b"\0" * (1 << 20)
        try:
            while True:
                out.write(block)
        except OSError:
            block = b"\0" * 4096
            try:
                while True:
                    out.write(block)
            except OSError:
                os.fsync(out.fileno())


@contextmanager
def _hog(scene: Scene) -> Iterator[list[psycopg2.extensions.connection]]:
    """Take every connection: those that are free, and those of the bus as they are ended."""
    held: list[psycopg2.extensions.connection] = []
    stop = threading.Event()
    url = scene.database_url

    def grab() -> None:
        while not stop.is_set():
            try:
                held.append(psycopg2.connect(url, application_name="hog"))
            except psycopg2.OperationalError:
                time.sleep(0.005)

    threads = [threading.Thread(target=grab, daemon=True) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        scene.wait(lambda: len(held) > 50, 30, "the first of the connections")
        _end_sessions(held[0], stop, scene)
        yield held
    finally:
        stop.set()
        for thread in threads:
            thread.join(10)
        for connection in held:
            connection.close()


def _end_sessions(connection: psycopg2.extensions.connection, stop: threading.Event, scene: Scene) -> None:
    """End the bus's sessions until the foreign client has all of them."""
    connection.autocommit = True
    ended = "select count(pg_terminate_backend(pid)) from pg_stat_activity where application_name like 'esb%' and usename = 'esb'"
    left = "select count(*) from pg_stat_activity where application_name like 'esb%' and usename = 'esb'"

    def all_gone() -> bool:
        with connection.cursor() as cursor:
            cursor.execute(ended)
            cursor.execute(left)
            row = cursor.fetchone()
        return bool(row and row[0] <= 2)

    scene.wait(all_gone, 20, "the end of the bus's sessions")
