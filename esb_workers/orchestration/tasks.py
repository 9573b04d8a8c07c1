"""The orchestration pool: its engine, and what it does with a claimed strand."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence

from esb_workers.errors import Unavailable
from esb_workers.orchestration.callbacks import Callbacks
from esb_workers.orchestration.catalogue import serve
from esb_workers.orchestration.control import cancel_orphans
from esb_workers.orchestration.engine import Runner
from esb_workers.orchestration.programs import Programs
from esb_workers.orchestration.publishing import Publisher
from esb_workers.orchestration.schedules import Schedules
from esb_workers.orchestration.services import ServiceCaller
from esb_workers.orchestration.start import Orchestration
from esb_workers.orchestration.world import Services
from esb_workers.registry.choice import Chooser
from esb_workers.registry.instances import Directory
from esb_workers.registry.secrets import Vault
from esb_workers.runtime.ringer import Ringer
from esb_workers.runtime.slots import SlotEngine
from esb_workers.runtime.slotwork import Outcome
from esb_workers.settings import Settings
from esb_workers.store import executions, starts
from esb_workers.store.engine import Database
from esb_workers.store.executions import StrandKey
from esb_workers.store.jobs import Claim, Done
from esb_workers.store.notices import Listener, tell
from esb_workers.store.step_queues import StepQueue, bell
from esb_workers.transport.address import AddressGuard
from esb_workers.transport.http import HttpCaller
from esb_workers.transport.transports import Transports

#: A strand that has not moved for so long is given to another worker, seconds; each transition sets it anew.
FIRST_DEADLINE = 60.0


class StrandWork:
    """Runs strands in the engine's slots. They write for themselves: the completer only gives back."""

    deadline_seconds = FIRST_DEADLINE

    def __init__(self, database: Database, runner: Runner) -> None:
        self._database = database
        self._runner = runner

    def prepare(self, claims: Sequence[Claim]) -> Sequence[Claim]:
        """Each strand loads what it needs when it runs."""
        return claims

    def run(self, task: Claim) -> Outcome:
        """Go on with a strand."""
        # A step that kills its worker has what came before it repeated once, not each time.
        return Outcome(None, timer=self._runner.run(task.id, task.attempt, strict=task.losses > 0))

    def release(self, claim: Claim) -> StrandKey:
        """Give back a strand that was not begun."""
        return StrandKey(claim.id, claim.attempt)

    def record(self, worker: int, records: Sequence[StrandKey]) -> Done:
        """Give back strands."""
        with self._database.cursor() as cursor:
            for key in records:
                executions.release(cursor, key, 0)
        return Done([key.job for key in records])


class StrandEngine(SlotEngine):
    """The resident engine of this pool."""

    def __init__(
        self,
        settings: Settings,
        database: Database,
        ringer: Ringer,
        services: Services,
        slots: int,
        close: Callable[[], None] = lambda: None,
        queue: StepQueue | None = None,
    ) -> None:
        self._close = close
        messages = Publisher(database, lambda: ringer.ring("routing"))
        programs = Programs(database)
        self._schedules = Schedules(database, Orchestration(database, ringer))
        runner = Runner(
            database,
            programs,
            services,
            messages,
            random=random.random,
            may_act=self._may_go_on,
            callbacks=Callbacks.of(settings),
            queue=None if queue is None else queue.name,
            ring=lambda name: ringer.ring("orchestration" if name is None else bell(name)),
            tell=self._tell_ended,
        )
        self._hurried = None if queue else Listener(database, "esb_started", lambda _: self.hear())
        super().__init__("orchestration", settings, database, ringer, StrandWork(database, runner), slots, queue=queue)

    def start(self) -> None:
        """As every engine; and hear of runs that somebody waits for, which is sooner than a bell."""
        super().start()
        if self._hurried is not None:
            self._hurried.ensure()

    def stop(self, grace_seconds: float) -> None:
        """As every engine; then close the connections to services."""
        if self._hurried is not None:
            self._hurried.close()
        super().stop(grace_seconds)
        self._close()

    def _tell_ended(self, run: str) -> None:
        """Tell whoever waits for a run. Under load they look for themselves: it would cost each run a statement."""
        if self._loaded():
            return
        try:
            with self.database.cursor() as cursor:
                tell(cursor, "esb_ended", run)
        except Unavailable:
            pass  # it has ended all the same

    def _make_due(self) -> None:
        """Timers, and schedules: whoever looks first starts their runs."""
        looks = time.monotonic() >= min(self._next_timer, self._next_due)
        super()._make_due()
        if looks:
            self._schedules.tick()

    def _may_go_on(self) -> bool:
        """Whether a strand may begin another step here: a stopping process hands it on."""
        return self.may_act() and not self._stopping.is_set()

    def _sweep(self) -> None:
        super()._sweep()
        with self.database.cursor() as cursor:
            executions.poison(cursor)
            admitted = starts.admit(cursor)
            executions.reclaim(cursor)
        # The pump knows of the next due time only if it has looked since that was set; it may sleep for several polls.
        started = self._schedules.tick()
        if cancel_orphans(self.database) or admitted or started:
            self.poke()


def make_engine(
    settings: Settings, database: Database, ringer: Ringer, slots: int, queue: str | None = None
) -> StrandEngine:
    """The engine of this pool, or of a queue of plug-in steps.

    Raises SettingsError when the signing secrets cannot be read, or no step of the queue is installed here.
    """
    served = None if queue is None else serve(database, queue)
    directory = Directory(Vault(settings.secret_keys))
    http = HttpCaller(AddressGuard.of(settings))
    others = Transports(AddressGuard.of(settings))
    services = ServiceCaller(database, directory, Chooser(database, directory), http, share=slots // 2, others=others)

    def close() -> None:
        http.close()
        others.close()

    return StrandEngine(settings, database, ringer, services, slots, close=close, queue=served)
