"""The embedded servers: prepared and started as root or not, below any folder, and gone with their parent."""

from __future__ import annotations

import os
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import psycopg2
import pytest
import redis

from esb_workers.node.folders import FolderInUse, FolderLock, socket_path_fits
from esb_workers.node.postgres import EmbeddedPostgres
from esb_workers.node.server import is_alive
from esb_workers.node.valkey import EmbeddedValkey

Eventually = Callable[..., None]


@pytest.fixture(scope="module")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedPostgres]:
    with EmbeddedPostgres(tmp_path_factory.mktemp("pg")) as server:
        yield server


def _ask(url: str, question: str) -> object:
    with closing(psycopg2.connect(url)) as connection, connection.cursor() as cursor:
        cursor.execute(question)
        row = cursor.fetchone()
        assert row is not None
        return row[0]


def _redis(url: str) -> redis.Redis:
    return redis.Redis.from_url(url.replace("redis+socket://", "unix://"))


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("fsync", "on"),
        ("full_page_writes", "on"),
        ("synchronous_commit", "on"),
        ("jit", "off"),
        ("server_encoding", "UTF8"),
        ("TimeZone", "UTC"),
    ],
)
def test_postgres_runs_durably(postgres: EmbeddedPostgres, setting: str, value: str) -> None:
    assert _ask(postgres.url, f"select current_setting('{setting}')") == value


def test_postgres_is_version_18_and_the_role_of_the_bus_is_no_superuser(postgres: EmbeddedPostgres) -> None:
    assert str(_ask(postgres.url, "show server_version")).startswith("18.")
    assert _ask(postgres.url, "select rolsuper from pg_roles where rolname = current_user") is False


def test_only_the_owner_may_enter_the_folder_of_the_socket(postgres: EmbeddedPostgres) -> None:
    assert stat.S_IMODE(postgres.folder.stat().st_mode) == 0o700
    assert postgres.folder.is_relative_to(postgres.data_dir)


def test_folders_that_are_not_ours_are_left_as_they_are(tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    before = [(p.stat().st_mode, p.stat().st_uid) for p in (closed, *closed.parents)]
    with EmbeddedPostgres(closed / "data") as server:
        assert _ask(server.url, "select 1") == 1
    assert [(p.stat().st_mode, p.stat().st_uid) for p in (closed, *closed.parents)] == before


def test_data_outlives_a_restart_and_a_kill(tmp_path: Path, eventually: Eventually) -> None:
    with EmbeddedPostgres(tmp_path) as server:
        with closing(psycopg2.connect(server.url)) as connection, connection, connection.cursor() as cursor:
            cursor.execute("create table kept as select 42 as answer")
        assert server._process is not None
        os.kill(server._process.pid, signal.SIGKILL)
        eventually(lambda: server._process is not None and server._process.poll() is not None)
        eventually(lambda: not _can_connect(server.folder / ".s.PGSQL.5432"))
    with EmbeddedPostgres(tmp_path) as server:
        assert _ask(server.url, "select answer from kept") == 42


def _can_connect(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        return probe.connect_ex(str(path)) == 0


def test_a_lock_file_that_names_a_foreign_process_does_not_keep_it_from_starting(tmp_path: Path) -> None:
    with EmbeddedPostgres(tmp_path) as server:
        pass
    (server.cluster / "postmaster.pid").write_text(f"{os.getppid()}\n{server.cluster}\n0\n5432\n\n\n\nready\n")
    (server.folder / ".s.PGSQL.5432.lock").write_text(f"{os.getppid()}\n")
    with EmbeddedPostgres(tmp_path) as server:
        assert _ask(server.url, "select 1") == 1


@pytest.mark.parametrize("kind", [EmbeddedPostgres, EmbeddedValkey])
def test_a_second_server_on_the_same_directory_is_refused(
    tmp_path: Path, kind: type[EmbeddedPostgres | EmbeddedValkey]
) -> None:
    with FolderLock(tmp_path), pytest.raises(FolderInUse, match=str(os.getpid())):
        kind(tmp_path).__enter__()


def test_where_the_path_is_too_long_for_a_socket_it_listens_on_loopback_behind_a_password(tmp_path: Path) -> None:
    deep = tmp_path / ("x" * 100)
    with EmbeddedPostgres(deep) as server:
        assert "@127.0.0.1:" in server.url
        assert _ask(server.url, "select inet_server_addr()::text") == "127.0.0.1/32"
        with pytest.raises(psycopg2.OperationalError, match="password"):
            psycopg2.connect(server.url.replace("esb:", "esb:not"))
    with EmbeddedValkey(deep) as valkey:
        assert _redis(valkey.url).ping()
        port = int(valkey.url.rpartition(":")[2].removesuffix("/0"))
        with pytest.raises(redis.AuthenticationError):
            redis.Redis(port=port).ping()


def test_a_path_with_odd_characters_is_fine(tmp_path: Path) -> None:
    odd = tmp_path / "a b%2'"
    if not socket_path_fits(odd / "postgres" / ".s.PGSQL.5432"):
        pytest.skip("the temporary folder's own path is too long")
    with EmbeddedPostgres(odd) as server:
        assert _ask(server.url, "select 1") == 1
    with EmbeddedValkey(odd) as valkey:
        assert _redis(valkey.url).ping()


def test_quotas_in_valkey_outlive_a_kill(tmp_path: Path) -> None:
    with EmbeddedValkey(tmp_path) as valkey:
        _redis(valkey.url).set("quota", 7)
        assert valkey._process is not None
        valkey._process.kill()
        valkey._process.wait()
    with EmbeddedValkey(tmp_path) as valkey:
        assert _redis(valkey.url).get("quota") == b"7"


_PARENT = """
import sys, time
from esb_workers.node.postgres import EmbeddedPostgres
from esb_workers.node.valkey import EmbeddedValkey
with EmbeddedPostgres(sys.argv[1]) as postgres:
    valkey = EmbeddedValkey(sys.argv[1])
    valkey.start()
    print(postgres._process.pid, valkey._process.pid, flush=True)
    time.sleep(60)
"""


def test_both_end_when_their_parent_is_killed_and_start_again_at_once(tmp_path: Path, eventually: Eventually) -> None:
    parent = subprocess.Popen([sys.executable, "-c", _PARENT, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    pids = [int(word) for word in parent.stdout.readline().split()]
    parent.kill()
    parent.wait()
    parent.stdout.close()
    assert len(pids) == 2
    with EmbeddedPostgres(tmp_path) as server:
        assert _ask(server.url, "select 1") == 1
    eventually(lambda: not any(is_alive(pid) for pid in pids))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_as_root_the_server_is_nobody_and_holds_at_most_the_right_to_pass_folders(postgres: EmbeddedPostgres) -> None:
    assert postgres._process is not None
    status = Path(f"/proc/{postgres._process.pid}/status").read_text()
    fields = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    assert fields["Uid"].split()[0] != "0"
    assert int(fields["CapEff"], 16) in (0, 1 << 1, 1 << 2)


@pytest.mark.skipif(not Path("/proc/self/environ").is_file(), reason="reads the environment by /proc")
def test_postgres_has_the_variables_that_are_its_own_and_ours_too(postgres: EmbeddedPostgres) -> None:
    assert postgres._process is not None
    lines = Path(f"/proc/{postgres._process.pid}/environ").read_text().split("\0")
    assert postgres.environ and {f"{name}={value}" for name, value in postgres.environ.items()} <= set(lines)
    assert f"PATH={os.environ['PATH']}" in lines
