"""A RabbitMQ node of the tests' own: free ports, a temporary folder, ended by its pid, or with the tests' process."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

from esb_workers.node import launch
from tests.support.bus import free_port

#: Where Debian puts what its wrapper in /usr/sbin would start as another user.
_SCRIPTS = Path("/usr/lib/rabbitmq/bin")
_START_SECONDS = 90.0
_PATH = os.environ.get("PATH", "/usr/bin:/bin") + ":/usr/sbin:/sbin"


class RabbitMissing(Exception):
    """There is no RabbitMQ on this machine, or it does not start."""


class RabbitNode:
    """`node = RabbitNode(folder); node.start(); node.url; node.stop()`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = free_port()
        self.url = f"amqp://guest:guest@127.0.0.1:{self.port}"
        self._distribution = free_port()
        self._names = free_port()
        self._processes: list[subprocess.Popen[bytes]] = []

    def start(self) -> None:
        """Start it and wait until it takes connections. Raises RabbitMissing."""
        server = _SCRIPTS / "rabbitmq-server"
        if not server.exists():
            found = shutil.which("rabbitmq-server")
            if found is None:
                raise RabbitMissing("rabbitmq-server is not installed (apt-get install rabbitmq-server)")
            server = Path(found)
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / "enabled_plugins").write_text("[].\n")
        (self.folder / "rabbitmq.conf").write_text(
            f"listeners.tcp.1 = 127.0.0.1:{self.port}\n"
            "vm_memory_high_watermark.absolute = 256MB\n"
            "disk_free_limit.absolute = 50MB\n"
            "log.file.level = warning\n"
        )
        # Erlang's name server first, and in the foreground: left to the node, it would start one that outlives it.
        self._run(shutil.which("epmd", path=_PATH) or "epmd", "-port", str(self._names), "-address", "127.0.0.1")
        self._run(str(server))
        self._wait()

    def _run(self, *command: str) -> None:
        # Ended also with a test run that is killed. Not by SIGKILL: the server is a script, which passes the signal on.
        command = tuple(launch.tied(command, signal.SIGTERM))
        with (self.folder / "out.log").open("ab") as log:
            self._processes.append(
                subprocess.Popen(
                    command, env=self._environ(), stdout=log, stderr=log, cwd=self.folder, start_new_session=True
                )
            )

    def _environ(self) -> dict[str, str]:
        folder = self.folder
        return {
            "PATH": _PATH,
            "HOME": str(folder),  # its cookie
            "LANG": "C.UTF-8",
            "RABBITMQ_NODENAME": f"esb{self.port}@localhost",
            "RABBITMQ_DIST_PORT": str(self._distribution),
            "RABBITMQ_CONF_ENV_FILE": str(folder / "none"),
            "RABBITMQ_CONFIG_FILE": str(folder / "rabbitmq.conf"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(folder / "enabled_plugins"),
            "RABBITMQ_MNESIA_BASE": str(folder / "mnesia"),
            "RABBITMQ_LOG_BASE": str(folder / "log"),
            "RABBITMQ_PID_FILE": str(folder / "pid"),
            "RABBITMQ_GENERATED_CONFIG_DIR": str(folder / "generated"),
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "+S 1:1 +sbwt none -kernel inet_dist_use_interface {127,0,0,1}",
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "ERL_EPMD_PORT": str(self._names),
        }

    def _wait(self) -> None:
        import amqp

        deadline = time.monotonic() + _START_SECONDS
        while True:
            try:
                with amqp.Connection(f"127.0.0.1:{self.port}", connect_timeout=2):
                    return
            except (OSError, amqp.AMQPError):
                if self._processes[-1].poll() is not None or time.monotonic() > deadline:
                    told = (self.folder / "out.log").read_text(errors="replace")[-1500:]
                    self.stop()
                    raise RabbitMissing(f"RabbitMQ does not start: {told}") from None
                time.sleep(0.1)

    def stop(self) -> None:
        """End the node and its name server, each with what it started: their sessions are their own."""
        for process in reversed(self._processes):
            for sign in (signal.SIGTERM, signal.SIGKILL):
                try:
                    os.killpg(process.pid, sign)
                    process.wait(15)
                except ProcessLookupError:
                    break
                except subprocess.TimeoutExpired:
                    continue
        self._processes.clear()
