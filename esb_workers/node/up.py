"""`esb up`: the whole bus on one machine."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Final, Self
from urllib.parse import urlsplit

from dotenv import dotenv_values
from pydantic import SecretStr

from esb_workers.errors import EsbError
from esb_workers.node.addresses import Addresses
from esb_workers.node.folders import FolderLock, free_port, private_folder
from esb_workers.node.keys import ADMIN_KEY_FILE, with_keys
from esb_workers.node.launch import tied
from esb_workers.node.parent import PARENT_VARIABLE
from esb_workers.node.postgres import EmbeddedPostgres
from esb_workers.node.server import EmbeddedServer, tail
from esb_workers.node.supervisor import Child, ChildFailed, Supervisor
from esb_workers.node.valkey import EmbeddedValkey
from esb_workers.queues import POOLS, PoolName
from esb_workers.settings import Settings
from esb_workers.store.migrate import migrate

_START_SECONDS: Final = 90.0
_API, _WORKERS, _SCHEDULER, _SERVERS = range(4)  # the order of stopping: the front door first
_API_GRACE: Final = 35.0  # seconds; longer than the longest `Prefer: wait`


class PortTaken(EsbError):
    """The port of the API is in use."""

    code = "port_taken"


@dataclass(frozen=True)
class Plan:
    """What to run. `esb` is the command that starts a process of the bus (`esb worker delivery`).

    `ready` tells from the API's URL and the pools whether the bus takes and does work.
    """

    esb: Sequence[str]
    ready: Callable[[str, Sequence[PoolName]], bool]
    workers: Mapping[PoolName, int] = field(default_factory=dict)
    flower: bool = True
    #: Why embedded servers are used, where it isn't for want of a setting.
    why_embedded: str | None = None

    def pools(self) -> list[PoolName]:
        return [pool for pool in POOLS if self.workers.get(pool, 1) > 0]


class Machine:
    """The servers and processes of one machine. A context manager: inside it the bus runs, leaving it stops all."""

    def __init__(self, settings: Settings, plan: Plan, say: Callable[[str], None]) -> None:
        self.settings = settings.model_copy(update={"data_dir": settings.data_dir.absolute()})
        self.plan = plan
        self.new_admin_key: str | None = None
        self.addresses: Addresses
        self.supervisor: Supervisor
        self._say = say
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        """Start everything and wait until it works. Raises FolderInUse, PortTaken, ChildFailed, StopRequested …"""
        with ExitStack() as stack:
            stack.enter_context(FolderLock(private_folder(self.settings.data_dir)))
            self._choose_ports()
            self.supervisor = stack.enter_context(Supervisor(self.settings.data_dir / "logs", self._say))
            stack.callback(Addresses.remove, self.settings.data_dir)
            self._start()
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    @property
    def admin_key(self) -> str:
        """The operator's key. Known once the machine runs."""
        assert self.settings.admin_key is not None
        return self.settings.admin_key.get_secret_value()

    @property
    def admin_key_file(self) -> Path | None:
        """Where the operator's key is kept, if the bus made it."""
        file = self.settings.data_dir / ADMIN_KEY_FILE
        return file if file.exists() and file.read_text(encoding="ascii").strip() == self.admin_key else None

    def _choose_ports(self) -> None:
        settings = self.settings
        api = settings.api_port or free_port(settings.api_host)
        if not _is_free(settings.api_host, api):
            raise PortTaken(
                f"port {api} on {settings.api_host} is in use: choose another with --port (0: any free one)"
            )
        flower = _free_from(settings.flower_host, settings.flower_port, avoid=api)
        self.settings = settings.model_copy(update={"api_port": api, "flower_port": flower})

    def _start(self) -> None:
        self.settings, self.new_admin_key = with_keys(self.settings)
        self._start_database()
        self._start_broker()
        assert self.settings.database_url is not None and self.settings.broker_url is not None
        database = self.settings.database_url.get_secret_value()
        migrate(database, wait_seconds=30)
        for child in self._processes():
            self.supervisor.start(child)
        self.addresses = Addresses(
            api=_url(self.settings.api_host, self.settings.api_port),
            database=database,
            broker=self.settings.broker_url.get_secret_value(),
            flower=_url(self.settings.flower_host, self.settings.flower_port) if self.plan.flower else None,
        )
        self._wait_until_it_works()
        self.addresses.write(self.settings.data_dir)

    def _start_database(self) -> None:
        if self.settings.database_url is not None:
            where = _without_password(self.settings.database_url.get_secret_value())
            self._say(f"Database: {where}, because {_database_setting()}")
            return
        server = EmbeddedPostgres(self.settings.data_dir)
        why = self.plan.why_embedded or "ESB_DATABASE_URL is not set, nor are DB_HOST and DB_NAME"
        self._say(f"Database: embedded PostgreSQL 18 in {server.folder}, because {why}")
        self._serve(server)
        self.settings = self.settings.model_copy(update={"database_url": SecretStr(server.url)})

    def _start_broker(self) -> None:
        if self.settings.broker_url is not None:
            where = _without_password(self.settings.broker_url.get_secret_value())
            self._say(f"Broker:   {where}, because ESB_BROKER_URL is set")
            return
        server = EmbeddedValkey(self.settings.data_dir)
        why = self.plan.why_embedded or "ESB_BROKER_URL is not set"
        self._say(f"Broker:   embedded Valkey in {server.folder}, because {why}")
        self._serve(server)
        self.settings = self.settings.model_copy(update={"broker_url": SecretStr(server.url)})

    def _serve(self, server: EmbeddedServer) -> None:
        child = Child(
            server.name,
            lambda: server.command,
            stage=_SERVERS,
            stop_signal=server.stop_signal,
            grace=server.patience,
            prepare=server.prepare,
            ready=server.ready,
        )
        self.supervisor.start_and_wait(child, server.patience)

    def _processes(self) -> Iterator[Child]:
        # gunicorn's quick stop; the others have nothing to tidy up once the servers are gone as well.
        yield self._process("api", ["api"], _API, _API_GRACE, death_signal=signal.SIGQUIT)
        grace = self.settings.worker_grace_seconds + 5
        for pool in POOLS:
            for number in range(1, self.plan.workers.get(pool, 1) + 1):
                role = f"worker {pool}" if number == 1 else f"worker {pool} {number}"
                yield self._process(role, ["worker", pool], _WORKERS, grace)
        yield self._process("scheduler", ["scheduler"], _SCHEDULER)
        if self.plan.flower:
            yield self._process("flower", ["flower"], _WORKERS)

    def _process(
        self,
        role: str,
        arguments: Sequence[str],
        stage: int,
        grace: float = 10.0,
        death_signal: signal.Signals = signal.SIGKILL,
    ) -> Child:
        environ = self._environ()
        # A drill's crash point is for one crash: a process that is started again runs without it.
        again = {name: value for name, value in environ.items() if name != "ESB_CRASH_AT"}
        command = [*self.plan.esb, *arguments]
        return Child(
            role, lambda: tied(command, death_signal), stage=stage, environ=environ, environ_again=again, grace=grace
        )

    def _environ(self) -> dict[str, str]:
        """The environment of a child: this one's, with the settings as they were found and completed here."""
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(("ESB_", "DB_"))}
        return {**inherited, **self.settings.environ(), PARENT_VARIABLE: str(os.getpid())}

    def _wait_until_it_works(self) -> None:
        def settled() -> bool:
            return self.supervisor.hopeless() is not None or self.plan.ready(self.addresses.api, self.plan.pools())

        in_time = self.supervisor.wait_for(settled, _START_SECONDS, tend=True)
        hopeless = self.supervisor.hopeless()
        if hopeless is not None or not in_time:
            role = hopeless or "api"
            log = self.supervisor.log_of(role)
            what = "dies again and again" if hopeless else f"is not ready after {_START_SECONDS:.0f} s"
            raise ChildFailed(f"{role} {what}; the end of {log}:\n{tail(log)}")


def _database_setting() -> str:
    """Which setting named the database."""
    names = {**dotenv_values(".env"), **os.environ}
    return "ESB_DATABASE_URL is set" if names.get("ESB_DATABASE_URL") else "DB_HOST and DB_NAME are set"


def _without_password(url: str) -> str:
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()


def _is_free(host: str, port: int) -> bool:
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as the server does: a port in TIME_WAIT is free
        try:
            probe.bind((host, port))
            probe.listen(1)
        except OSError:
            return False
        return True


def _free_from(host: str, port: int, avoid: int, tries: int = 100) -> int:
    """The first free port from `port` on; any for 0."""
    candidates = range(port, min(port + tries, 65536)) if port else ()
    return next((p for p in candidates if p != avoid and _is_free(host, p)), 0) or free_port(host)


def _url(host: str, port: int) -> str:
    """The URL under which this machine reaches a server bound to `host`."""
    host = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}.get(host, host)
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
