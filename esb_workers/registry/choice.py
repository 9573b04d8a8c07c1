"""Who is called, and what their answers mean for their circuit: choice of an instance, over the store."""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from esb_workers.errors import Unavailable
from esb_workers.registry import selection
from esb_workers.registry.circuit import Window, pause_seconds
from esb_workers.registry.instances import Directory, Instance
from esb_workers.registry.selection import Destination
from esb_workers.store import circuits
from esb_workers.store.engine import Database

log = logging.getLogger(__name__)

#: After this, what could not be called is looked at again, milliseconds. Closed gates of lanes do not need it; it is
#: for versions nobody has, and for what was claimed in the moment in which a gate closed.
LOOK_AGAIN = 1000
#: A probe must have come back after the call's own time and this, seconds; then another may try.
PROBE_MARGIN = 10.0


@dataclass(frozen=True, slots=True)
class Chosen:
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
        self._windows: dict[str, tuple[int, Window]] = {}
        self._lock = threading.Lock()

    def choose(self, destination: Destination, timeout_ms: int) -> Chosen | NotNow:
        """An instance of the destination; an instance whose circuit waits for a probe comes first, once."""
        registered = self._directory.named(destination.name)
        fitting = selection.in_range(registered, destination.range)
        for instance in selection.probes_due(fitting, self._directory.now()):
            if self._move(
                instance, instance.epoch, "half_open", instance.circuit.opens, timeout_ms / 1000 + PROBE_MARGIN
            ):
                return Chosen(instance, probe=True)
        found = selection.choose(fitting, self._chance)
        return Chosen(found) if found else NotNow(selection.why_none(registered, fitting))

    def report(self, chosen: Chosen, ok: bool) -> None:
        """Tell how a call went, for the circuit: `ok` unless the instance is to blame."""
        if chosen.probe:
            self._end_probe(chosen.instance, ok)
        elif self._opens(chosen.instance, ok):
            log.warning("circuit opens", extra={"service": chosen.instance.name, "instance": chosen.instance.id})
            self._open(chosen.instance, chosen.instance.epoch)

    def _end_probe(self, instance: Instance, ok: bool) -> None:
        epoch = instance.epoch + 1  # winning the probe has moved it
        if ok:
            log.info("circuit closes", extra={"service": instance.name, "instance": instance.id})
            self._move(instance, epoch, "closed", 0, 0)
        else:
            self._open(instance, epoch)

    def _opens(self, instance: Instance, ok: bool) -> bool:
        with self._lock:
            epoch, window = self._windows.get(instance.id, (-1, Window()))
            if instance.epoch > epoch:  # what was counted before the circuit changed says nothing about now
                window = Window()
                self._windows[instance.id] = instance.epoch, window
            elif instance.epoch < epoch:
                return False
            return window.record(ok, time.monotonic())

    def _open(self, instance: Instance, epoch: int) -> None:
        opens = instance.circuit.opens + 1
        self._move(instance, epoch, "open", opens, pause_seconds(opens))

    def _move(self, instance: Instance, epoch: int, to: str, opens: int, seconds: float) -> bool:
        try:
            return circuits.change(self._database, instance.id, epoch, to, opens, seconds)
        except Unavailable:
            return False  # a later failure opens it; a probe that could not be told is followed by another
