"""Folders, sockets, ports and locks of one machine."""

from __future__ import annotations

import fcntl
import os
import socket
import sys
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from esb_workers.errors import EsbError
from esb_workers.node.launch import User

#: Longest path of a Unix socket, bytes: `sun_path` without its closing zero.
SOCKET_PATH_MAX: Final = 107 if sys.platform == "linux" else 103


class FolderInUse(EsbError):
    """Another process works on this data directory."""

    code = "folder_in_use"


def private_folder(path: Path, owner: User | None = None) -> Path:
    """Make `path`, for its owner alone; one that exists is left as it is. Parents are made private too."""
    if not path.is_dir():
        if path.parent != path:
            private_folder(path.parent)
        path.mkdir(mode=0o700, exist_ok=True)
        if owner is not None:
            os.chown(path, owner.uid, owner.gid)
    return path


def write_private(path: Path, text: str, owner: User | None = None) -> None:
    """Write a file that only its owner may read, all of it or nothing."""
    draft = path.with_name(path.name + ".new")
    draft.unlink(missing_ok=True)
    with open(draft, "x", encoding="utf-8", opener=lambda name, flags: os.open(name, flags, 0o600)) as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    if owner is not None:
        os.chown(draft, owner.uid, owner.gid)
    draft.replace(path)


def socket_path_fits(path: Path) -> bool:
    """Whether a Unix socket can have this path."""
    return len(os.fsencode(path)) <= SOCKET_PATH_MAX


def free_port(host: str = "127.0.0.1") -> int:
    """A TCP port nobody listens on at this moment."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])


class FolderLock:
    """The right to run servers on a data directory; the kernel takes it back when the holder ends, however."""

    def __init__(self, data_dir: Path) -> None:
        self._path = data_dir / "lock"
        self._fd: int | None = None

    def __enter__(self) -> Self:
        self.take()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()

    def take(self) -> None:
        """Raises FolderInUse naming the holder."""
        private_folder(self._path.parent)
        fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.read(fd, 32).decode("ascii", "replace").strip() or "unknown"
            os.close(fd)
            raise FolderInUse(
                f"{self._path.parent} is in use by process {holder}: stop that one, or choose another data directory",
                pid=holder,
            ) from None
        os.ftruncate(fd, 0)
        os.write(fd, f"{os.getpid()}\n".encode())
        self._fd = fd

    def release(self) -> None:
        """Give the folder free. The file stays: removing it would race with the next holder."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None
