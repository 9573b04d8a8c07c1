"""Who is called, and what their answers mean for their circuit: choice of an instance, over the store."""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from esb_workers.errors import Unavailable
from esb_workers.registry import selection
from esb_workers.registry.circuit import WINDOW_SECONDS, Figures, Tally, pause_seconds
from esb_workers.registry.instances import DEFAULT_TIMEOUT, Directory, Instance
from esb_workers.registry.selection import Destination
from esb_workers.store import circuits
from esb_workers.store.engine import Database

log = logging.getLogger(__name__)

#: After this, what could not be called is looked at again, milliseconds. Closed gates of lanes do not need it; it is
#: for versions nobody has, and for what was claimed in the moment in which a gate closed.
LOOK_AGAIN = 1000
#: A probe must have come back after the call's own time and this, seconds; then another may try.
PROBE_MARGIN = 10.0
#: Attempts that went well are reported together, after this, seconds; a failure takes them along at once.
REPORT_AFTER = 0.3


class Chosen(NamedTuple):
    """An instance to call. `probe`: this call decides whether its circuit closes."""

    instance: Instance
    probe: bool = False


@dataclass(frozen=True, slots=True)
class NotNow:
    """Nobody can be called, and why; look again in `retry_ms`."""

    reason: str
    retry_ms: int = LOOK_AGAIN


class Chooser:
    """Chooses instances and keeps their circuits. One a process; safe for threads."""

    def __init__(self, database: Database, directory: Directory, chance: Callable[[], float] = random.random) -> None:
        self._database = database
        self._directory = directory
        self._chance = chance
        self._seen: dict[str, tuple[Instance, Tally]] = {}
        self._lock = threading.Lock()
        self._reporter: threading.Thread | None = None

    def choose(self, destination: Destination, timeout_ms: int | None) -> Chosen | NotNow:
        """An instance of the destination; an instance whose circuit waits for a probe comes first, once.

        `timeout_ms`: of the call; None: the instance's own.
        """
        registered = self._directory.named(destination.name)
        fitting = selection.in_range(registered, destination.range)
        for instance in selection.probes_due(fitting, self._directory.now()):
            seconds = (timeout_ms or instance.timeout or DEFAULT_TIMEOUT) / 1000 + PROBE_MARGIN
            if self._move(instance, instance.epoch, "half_open", instance.circuit.opens, seconds):
                return Chosen(instance, probe=True)
        found = selection.choose(fitting, self._chance)
        return Chosen(found) if found else NotNow(selection.why_none(registered, fitting))

    def choose_closed(self, destination: Destination) -> Instance | None:
        """An instance whose circuit is closed; None if there is none, or one waits for a probe: `choose` then."""
        fitting = selection.in_range(self._directory.named(destination.name), destination.range)
        if len(fitting) == 1:  # as most services have it: nothing to choose
            only = fitting[0]
            return only if only.status == "active" and only.circuit.state == "closed" else None
        if selection.probes_due(fitting, self._directory.now()):
            return None
        return selection.choose(fitting, self._chance)

    def report(self, chosen: Chosen, ok: bool) -> None:
        """Tell how a call went, for the circuit: `ok` unless the instance is to blame.

        A failure is told before this returns, so that what is called next knows a circuit that opens by it.
        """
        instance = chosen.instance
        if chosen.probe:
            self._end_probe(instance, ok)
            return
        with self._lock:
            seen = self._seen.get(instance.id)
            if seen is None or seen[0].epoch != instance.epoch:
                seen = self._seen[instance.id] = (instance, Tally())
            seen[1].add(ok)
            if not ok:
                del self._seen[instance.id]
            elif self._reporter is None:
                self._reporter = threading.Thread(target=self._tell, name="circuit-report", daemon=True)
                self._reporter.start()
        if not ok:
            self._judge({instance.id: seen})

    def _end_probe(self, instance: Instance, ok: bool) -> None:
        epoch = instance.epoch + 1  # winning the probe has moved it
        if ok:
            log.info("circuit closes", extra={"service": instance.name, "instance": instance.id})
            self._move(instance, epoch, "closed", 0, 0)
        else:
            self._open(instance, epoch)

    def _tell(self) -> None:
        """Report what went well, until there is nothing more: a process without calls has no thread for it."""
        while True:
            time.sleep(REPORT_AFTER)
            with self._lock:
                seen, self._seen = self._seen, {}
                if not seen:
                    self._reporter = None
                    return
            try:
                self._judge(seen)
            except Exception:  # without this thread, what goes well would never be told again
                log.exception("the report on circuits stumbled")

    def _judge(self, seen: Mapping[str, tuple[Instance, Tally]]) -> None:
        reports = [
            circuits.Report(instance.id, instance.epoch, tally.ok, tally.failed, tally.trailing)
            for instance, tally in seen.values()
        ]
        try:
            rows = circuits.tally(self._database, reports, WINDOW_SECONDS)
        except Unavailable:
            return  # who cannot be reached cannot be told either: a later failure opens it
        for row in rows:
            instance, _ = seen[row.service_id]
            if Figures(row.in_a_row, row.ok, row.failed).opens() and self._open(instance, instance.epoch):
                log.warning("circuit opens", extra={"service": instance.name, "instance": instance.id})

    def _open(self, instance: Instance, epoch: int) -> bool:
        opens = instance.circuit.opens + 1
        return self._move(instance, epoch, "open", opens, pause_seconds(opens))

    def _move(self, instance: Instance, epoch: int, to: str, opens: int, seconds: float) -> bool:
        try:
            return circuits.change(self._database, instance.id, epoch, to, opens, seconds)
        except Unavailable:
            return False  # a later failure opens it; a probe that could not be told is followed by another
