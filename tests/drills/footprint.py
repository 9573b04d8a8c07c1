"""I6: what the bus holds of its machine, before a fault and after it."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import psutil

if TYPE_CHECKING:
    from tests.drills.scene import Scene

#: Besides a tenth: small counts vary by chance, connections to destinations are kept for a minute, and Python keeps
#: some memory it once needed.
SLACK = {"threads": 12, "files": 100, "connections": 16, "megabytes": 60}


@dataclass(frozen=True)
class Footprint:
    """Sums over the processes of the bus (its servers apart), and connections at the database."""

    threads: int
    files: int
    megabytes: int
    connections: int

    @classmethod
    def of(cls, scene: Scene) -> Footprint:
        threads = files = rss = 0
        for process in [p for role in ("esb worker", "esb scheduler", "esb api") for p in scene.bus.processes(role)]:
            try:
                with process.oneshot():
                    if "postgres" in process.name() or "valkey" in process.name():
                        continue
                    threads += process.num_threads()
                    files += process.num_fds()
                    rss += process.memory_info().rss
            except psutil.NoSuchProcess:
                continue
        count = scene.sql("select count(*) from pg_stat_activity where application_name like 'esb%'")[0][0]
        return cls(threads, files, rss >> 20, count)

    def compare(self, scene: Scene, seconds: float = 20.0) -> None:
        """Require that the bus comes back to about this within `seconds`."""
        deadline = time.monotonic() + seconds
        while grown := self._grown(Footprint.of(scene)):
            if time.monotonic() > deadline:
                scene.require(False, "I6 bounded", "; ".join(grown))
                return
            time.sleep(0.5)

    def _grown(self, now: Footprint) -> list[str]:
        found = []
        for name, slack in SLACK.items():
            before, after = getattr(self, name), getattr(now, name)
            if after > before * 1.1 + slack:
                found.append(f"{name} {before} → {after}")
        return found
