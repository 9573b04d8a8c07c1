"""The pieces of `esb up`: keys, folders, ports, locks, and what a process knows of its parent."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.fernet import Fernet

from esb_workers.errors import SettingsError
from esb_workers.node import up
from esb_workers.node.addresses import Addresses
from esb_workers.node.flower import flower_login
from esb_workers.node.folders import FolderInUse, FolderLock, private_folder, write_private
from esb_workers.node.keys import with_keys
from esb_workers.node.parent import PARENT_VARIABLE
from esb_workers.node.server import is_alive
from esb_workers.settings import Settings

Eventually = Callable[..., None]


def settings(data_dir: Path, **environ: str) -> Settings:
    return Settings.load({"ESB_DATA_DIR": str(data_dir), **environ}, dotenv=None)


def test_keys_are_made_once_and_kept_for_the_owner_alone(data_dir: Path) -> None:
    private_folder(data_dir)
    first, shown = with_keys(settings(data_dir))
    again, shown_again = with_keys(settings(data_dir))
    assert shown is not None and first.admin_key is not None
    assert shown == first.admin_key.get_secret_value()
    assert shown_again is None
    assert (again.admin_key, again.secret_keys) == (first.admin_key, first.secret_keys)
    Fernet(first.secret_keys[0])
    assert {path.stat().st_mode & 0o777 for path in data_dir.iterdir()} == {0o600}


def test_keys_that_are_set_are_used_and_not_written_down(data_dir: Path) -> None:
    private_folder(data_dir)
    key = "k" * 24
    found, shown = with_keys(settings(data_dir, ESB_ADMIN_KEY=key, ESB_SECRET_KEYS="a,b"))
    assert found.admin_key is not None and found.admin_key.get_secret_value() == key
    assert found.secret_keys == ("a", "b")
    assert shown is None
    assert list(data_dir.iterdir()) == []


def test_a_folder_that_exists_keeps_its_mode_and_new_ones_are_private(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    made = private_folder(tmp_path / "a" / "b")
    assert tmp_path.stat().st_mode & 0o777 == 0o755
    assert made.stat().st_mode & 0o777 == made.parent.stat().st_mode & 0o777 == 0o700


def test_a_private_file_is_replaced_whole(tmp_path: Path) -> None:
    for text in ("long and first", "short"):
        write_private(tmp_path / "f", text)
    assert (tmp_path / "f").read_text() == "short"
    assert [p.name for p in tmp_path.iterdir()] == ["f"]


def test_a_lock_names_its_holder_and_is_free_when_the_holder_is_killed(tmp_path: Path) -> None:
    code = f"from pathlib import Path; from esb_workers.node.folders import FolderLock; import time\nwith FolderLock(Path({str(tmp_path)!r})): print('held', flush=True); time.sleep(60)"
    holder = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None and holder.stdout.readline() == "held\n"
    with pytest.raises(FolderInUse, match=f"process {holder.pid}"):
        FolderLock(tmp_path).take()
    holder.kill()
    holder.wait()
    holder.stdout.close()
    with FolderLock(tmp_path):
        pass


def test_flowers_port_falls_forward_to_a_free_one() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        found = up._free_from("127.0.0.1", port, avoid=port + 1)
        assert found not in (port, port + 1) and found > 0
        assert not up._is_free("127.0.0.1", port)


def test_flower_never_runs_without_a_password(data_dir: Path) -> None:
    with pytest.raises(SettingsError, match="ESB_FLOWER_AUTH"):
        flower_login(settings(data_dir))
    assert flower_login(settings(data_dir, ESB_FLOWER_AUTH="me:secret")) == "me:secret"
    assert flower_login(settings(data_dir, ESB_ADMIN_KEY="k" * 24)) == "admin:" + "k" * 24


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("127.0.0.1", "http://127.0.0.1:80"),
        ("0.0.0.0", "http://127.0.0.1:80"),
        ("::", "http://[::1]:80"),
        ("bus", "http://bus:80"),
    ],
)
def test_the_url_shown_is_one_that_this_machine_can_open(host: str, url: str) -> None:
    assert up._url(host, 80) == url


def test_a_database_is_shown_without_its_password() -> None:
    assert up._without_password("postgresql://me:secret@db:5432/esb") == "postgresql://db:5432/esb"


def test_addresses_are_written_and_read_back_and_rubbish_is_none(tmp_path: Path) -> None:
    addresses = Addresses(api="http://a", database="postgresql://b", broker="redis://c")
    addresses.write(tmp_path)
    assert Addresses.read(tmp_path) == addresses
    (tmp_path / "addresses.json").write_text("[")
    assert Addresses.read(tmp_path) is None


def test_a_python_child_ends_with_its_parent_even_without_the_kernels_help(eventually: Eventually) -> None:
    child = "import time; from esb_workers.node.parent import end_with_parent; end_with_parent(0.05); print(__import__('os').getpid(), flush=True); time.sleep(60)"
    code = f"import os, subprocess, sys\nos.environ[{PARENT_VARIABLE!r}] = str(os.getpid())\nsubprocess.run([sys.executable, '-c', {child!r}])"
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    pid = int(parent.stdout.readline())
    assert is_alive(pid)
    parent.kill()
    parent.wait()
    parent.stdout.close()
    eventually(lambda: not is_alive(pid))


def test_a_process_nobody_named_a_parent_for_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    from esb_workers.node.parent import end_with_parent

    monkeypatch.setenv(PARENT_VARIABLE, "1")
    if os.getppid() != 1:
        end_with_parent()  # of a number that is not its parent it takes no notice
