"""What every drill plays on: a whole bus, receivers with one journal, senders, and the judgement at the end."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import psutil
import psycopg2
import redis

from tests.drills.checker import Expected, Violation, check, sent_twice
from tests.drills.history import OK, History, Journal, Sent, read_ledger
from tests.drills.report import NotRun, Result
from tests.drills.workload import Plan, Workload
from tests.support.bus import ESB, RunningBus, wait_until
from tests.support.receiver import Receiver
from tests.support.servers import TcpPostgres, TcpValkey

#: Short, so that drills are: a worker that is silent for 4 s loses its work; everyone looks for work each second.
LEASE, SWEEP = 4.0, 1.0
#: Retried steadily and for longer than any fault of a drill lasts.
PATIENT = {"maxRetries": 500, "backoffStrategy": "fixed", "initialDelay": 500, "jitter": 0.2}


class Scene:
    """One run of a drill, in a folder of its own. `quick`: the short form for CI."""

    def __init__(self, folder: Path, *, quick: bool = False) -> None:
        self.folder = folder
        self.quick = quick
        self.stack = ExitStack()
        self.result = Result()
        self.journal = Journal(folder / "journal")
        self.sent: list[Sent] = []
        self.numbers = itertools.count()
        self.receivers: dict[str, Receiver] = {}
        self.bus: RunningBus
        self.expected = Expected()
        self.calm_accept = (
            0.0  # 95th percentile of an accept in the warm-up, seconds: what this machine takes without a fault
        )
        self._healed_at: float | None = None
        self._servers: tuple[str, str] | None = None

    # --- setting up ------------------------------------------------------------------------------------

    def start_bus(
        self, *arguments: str, receivers: tuple[str, ...] = ("a",), register: bool = True, **settings: Any
    ) -> RunningBus:
        """`esb up`, and a service and route for each receiver: `drill.a` goes to service `a`."""
        settings = {"lease_seconds": LEASE, "sweep_seconds": SWEEP, "log_level": "WARNING"} | settings
        self.bus = RunningBus(self.folder / "bus", *arguments, **settings)
        self.stack.enter_context(self.bus)
        for name in receivers:
            self.add_receiver(name, register=register)
        return self.bus

    def add_receiver(self, name: str, *, register: bool = True) -> Receiver:
        receiver = self.stack.enter_context(Receiver())
        receiver.note = self.journal.note(name)
        self.receivers[name] = receiver
        if register:
            self.register(name, receiver.url)
        return receiver

    def register(self, name: str, endpoint: str, policy: dict[str, Any] | None = None, **delivery: Any) -> None:
        """A service, and the route `drill.{name}` to it."""
        self.bus.create("/services", {"name": name, "version": "1.0.0", "endpoint": endpoint, "delivery": delivery})
        route = {"name": name, "pattern": f"drill.{name}", "destinations": [name], "retryPolicy": policy or PATIENT}
        self.bus.create("/routing/routes", route)

    def tcp_servers(self) -> tuple[TcpPostgres, TcpValkey]:
        """PostgreSQL and Valkey of the driver's own, on TCP; start the bus with their `url`s."""
        postgres = self.stack.enter_context(TcpPostgres(self.folder / "pg"))
        valkey = self.stack.enter_context(TcpValkey(self.folder / "valkey"))
        self._servers = postgres.url, valkey.url
        return postgres, valkey

    def spawn(self, *arguments: str, prefix: tuple[str, ...] = (), **settings: Any) -> psutil.Popen:
        """A further process of the bus, `spawn("worker", "delivery")`, with settings of its own by keyword."""
        environ = {"DATABASE_URL": self.database_url, "BROKER_URL": self.broker_url, "SECRET_KEYS": self.secret_keys}
        environ |= {
            "LEASE_SECONDS": LEASE,
            "SWEEP_SECONDS": SWEEP,
            "LOG_LEVEL": "WARNING",
            "ADMIN_KEY": self.bus.admin_key,
        }
        environ |= {name.upper(): value for name, value in settings.items()}
        own = {f"ESB_{name}": str(value) for name, value in environ.items()}
        inherited = {k: v for k, v in os.environ.items() if not k.startswith(("ESB_", "DB_"))}
        log = self.stack.enter_context((self.folder / f"{'-'.join(arguments)}-{time.monotonic_ns()}.log").open("wb"))
        process = psutil.Popen(
            [*prefix, ESB, *arguments], env=inherited | own, stdout=log, stderr=subprocess.STDOUT, cwd=self.folder
        )
        self.stack.callback(_end, process)
        return process

    # --- where things are ------------------------------------------------------------------------------

    @property
    def data(self) -> Path:
        return self.folder / "bus" / "data"

    def _address(self, which: str) -> str:
        file = self.data / "addresses.json"
        self.wait(file.exists, 10, "the bus's own list of addresses")  # it is written after the bus is ready
        return str(json.loads(file.read_text())[which])

    @property
    def database_url(self) -> str:
        return self._servers[0] if self._servers else self._address("database")

    @property
    def broker_url(self) -> str:
        return self._servers[1] if self._servers else self._address("broker")

    @property
    def secret_keys(self) -> str:
        return (self.data / "secret-keys").read_text().strip()

    def redis(self) -> redis.Redis:
        """A client of the broker, past any proxy."""
        client = redis.Redis.from_url(self.broker_url.replace("redis+socket://", "unix://"), socket_timeout=5)
        self.stack.callback(client.close)
        return client

    def sql(self, statement: str, *values: Any) -> list[tuple[Any, ...]]:
        """One statement, in autocommit, past any proxy."""
        connection = psycopg2.connect(self.database_url, connect_timeout=5)
        connection.autocommit = True
        try:
            with connection.cursor() as cursor:
                cursor.execute(statement, values or None)
                return list(cursor.fetchall()) if cursor.description else []
        finally:
            connection.close()

    # --- playing ---------------------------------------------------------------------------------------

    @contextmanager
    def load(self, plan: Plan | None = None) -> Iterator[Workload]:
        """Senders at work during the block."""
        plan = plan or Plan()
        workload = Workload(self.bus.port, self.bus.admin_key, plan, self.numbers)
        try:
            with workload:
                yield workload
        finally:
            self.sent += workload.sent

    def warm_up(self, count: int = 60) -> None:
        """Some messages before the fault, so that every process has its connections and caches."""
        with self.load(Plan(per_second=60)) as load:
            self.wait(lambda: load.accepted >= count, 30, "the warm-up")
        self.wait(lambda: self.arrived() >= load.accepted, 30, "the arrival of the warm-up")
        took = sorted(s.tries[0].ended - s.tries[0].started for s in load.sent)
        self.calm_accept = took[-max(1, len(took) // 20)]

    def arrived(self) -> int:
        """Messages that have arrived at least once, about."""
        return len({a.n for a in self.journal.read()})

    def wait(self, condition: Any, seconds: float = 30, what: str = "the condition") -> Any:
        """wait_until, with time for a machine that others share."""
        return wait_until(condition, seconds * 2, what)

    def healed(self) -> None:
        """The fault is over; the recovery time counts from here."""
        self._healed_at = time.monotonic()

    def require(self, condition: bool, invariant: str, text: str) -> None:
        """Note a violation unless the condition holds."""
        if not condition:
            self.result.violations.append(Violation(invariant, text))

    def settle(self, within: float, patience: float = 90.0) -> None:
        """Wait until all that was accepted has arrived and nothing is open; that may take `within` seconds."""
        began = self._healed_at if self._healed_at is not None else time.monotonic()
        accepted = {s.n for s in self.sent if s.outcome == OK}
        accepted -= {n for n in accepted if self.expected.endings.get(n, "delivered") != "delivered"}
        deadline = time.monotonic() + patience
        while time.monotonic() < deadline:
            if accepted <= {a.n for a in self.journal.read()} and not self.open_jobs():
                break
            time.sleep(0.1)
        took = time.monotonic() - began
        self.result.recovery = max(self.result.recovery or 0.0, took)
        self.require(took <= within, "recovery", f"took {took:.1f} s, may take {within:.0f} s")

    def open_jobs(self) -> int:
        try:
            return int(self.sql("select count(*) from job where pool in (1, 2)")[0][0])
        except psycopg2.OperationalError:
            return -1

    def judge(self) -> Result:
        """The checker's verdict, added to what the drill itself required."""
        history = History(self.sent, self.journal.read(), read_ledger(self.database_url))
        told = [[s.n, s.key, s.outcome, [[t.started, t.ended, t.status] for t in s.tries]] for s in self.sent]
        (self.folder / "sent.json").write_text(json.dumps(told))  # beside the journal, for whoever asks why
        result = self.result
        result.violations += check(history, self.expected)
        result.accepted += sum(s.outcome == OK for s in self.sent)
        result.unknown += sum(s.outcome == "unknown" for s in self.sent)
        result.arrived += len({a.n for a in history.arrivals if a.status < 300})
        result.twice += sent_twice(history)
        return result


def need_root(why: str) -> None:
    """Raises NotRun for anyone else."""
    if os.geteuid() != 0:
        raise NotRun(f"{why} needs root")


def _end(process: psutil.Popen) -> None:
    if process.is_running():
        try:
            process.resume()
            process.terminate()
            process.wait(15)
        except (psutil.NoSuchProcess, psutil.TimeoutExpired):
            process.kill()
            process.wait(5)
