"""One worker process: a Celery worker on one queue, with the resident engine of that pool in it."""

from __future__ import annotations

import logging
import os
import socket
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from celery import Celery, signals
from celery.worker.consumer import Consumer

from esb_workers import drill, garbage, logs
from esb_workers.app import add_queue, make_celery
from esb_workers.errors import SettingsError
from esb_workers.queues import POOLS, PoolName, drain_task
from esb_workers.runtime.engine import Engine
from esb_workers.runtime.ringer import Ringer
from esb_workers.settings import Settings
from esb_workers.store import migrate
from esb_workers.store.engine import Database

if TYPE_CHECKING:
    from esb_workers.delivery.call import Starter, WorkflowStart, WorkflowStarted

log = logging.getLogger(__name__)

#: Celery threads that answer bells. While all of them do, the consumer stops listening, and is slow to begin again.
BELL_THREADS = 4
#: What happened to bells is told to Flower this often, seconds.
EVENT_PAUSE = 1.0
#: A worker tells Flower that it lives this often, seconds: each time all processes of a bus do so at once, for
#: milliseconds, and a message that comes then waits for it.
EVENT_HEARTBEAT = 10.0
#: A worker whose threads all hold bells hears the next one this long after they were given back at most, seconds.
DEAF_TICK = 0.2
#: After Celery's worker has failed, it is started again in this time, seconds.
DEAF_PAUSE = 2.0


def _nothing() -> None:
    """What a tick of the loop is for is the tick."""


class BellConsumer(Consumer):  # type: ignore[misc]
    """Celery's consumer, without two things that cost more than the bells.

    Its delayed tasks: beside quorum queues they bring 28 queues that nothing here uses. And its haste to publish what
    happened to a bell, in a message for each event: they are gathered for EVENT_PAUSE.
    """

    class Blueprint(Consumer.Blueprint):  # type: ignore[misc]
        """The same steps but that one."""

        default_steps = tuple(step for step in Consumer.Blueprint.default_steps if "DelayedDelivery" not in str(step))

    def register_with_event_loop(self, hub: Any) -> None:
        """Called whenever a connection is there, which may be a new one; its timers end with it."""
        super().register_with_event_loop(hub)
        hub.call_repeatedly(EVENT_PAUSE, self._flush_events)
        # While all threads are busy the consumer stops listening to Redis, and it looks whether one has come free only
        # when something else wakes its loop: without this, up to a second later.
        hub.call_repeatedly(DEAF_TICK, _nothing)

    def create_task_handler(self, *arguments: Any, **options: Any) -> Callable[[Any], Any]:
        """What is done with each bell: the engine hears it before Celery makes a task of it."""
        handle = super().create_task_handler(*arguments, **options)

        def heard(message: Any) -> Any:
            self.hear()
            return handle(message)

        return heard

    @staticmethod
    def hear() -> None:
        """A bell has come in. Replaced by the engine's."""

    def on_send_event_buffered(self) -> None:
        """The timer sees to it."""


def run(settings: Settings, pool: PoolName, concurrency: int | None = None, *, queue: str | None = None) -> int:
    """Run a worker of this pool, or of a queue of plug-in steps, until SIGTERM or SIGINT; returns the exit code.

    Raises SettingsError, SchemaMismatch, Unavailable when it cannot start.
    """
    if pool not in POOLS:
        raise SettingsError(f"there is no pool {pool!r}; there are {', '.join(POOLS)}")
    if queue is not None and pool != "orchestration":
        raise SettingsError(f"steps belong to the pool orchestration: {pool} has no queues")
    if settings.database_url is None or settings.broker_url is None:
        raise SettingsError("ESB_DATABASE_URL and ESB_BROKER_URL must be set for a worker")
    logs.configure(f"worker-{pool}", log_format=settings.log_format, level=settings.log_level)
    drill.arm(settings.crash_at)
    slots = concurrency or settings.worker_concurrency
    database = Database(settings.database_url.get_secret_value(), pool_size=slots + 6, name=f"esb worker {pool}")
    migrate.check(database)
    app = make_celery(settings)
    ringer = Ringer(app)
    engine = make_engine(settings, pool, database, ringer, slots, queue)
    garbage.settle()
    _serve(app, engine, settings)
    ringer.close()
    database.dispose()
    return 0


def make_engine(
    settings: Settings, pool: PoolName, database: Database, ringer: Ringer, slots: int, queue: str | None = None
) -> Engine:
    """The engine of a pool. Imported here, so that a process loads only what it runs."""
    if pool == "routing":
        from esb_workers.routing import tasks as routing

        return routing.make_engine(settings, database, ringer)
    if pool == "delivery":
        from functools import partial

        from esb_workers.delivery import tasks as delivery
        from esb_workers.routing.forming import Former

        make_former = partial(Former, base_url=settings.base_url)
        return delivery.make_engine(settings, database, ringer, slots, make_former, _starter(database, ringer))
    if pool == "orchestration":
        from esb_workers.orchestration import tasks as orchestration

        return orchestration.make_engine(settings, database, ringer, slots, queue)
    if pool == "ingress":
        from esb_workers.listening import tasks as listening

        return listening.make_engine(settings, database, ringer, slots)
    from esb_workers.health import tasks as health

    return health.make_engine(settings, database, ringer, slots)


def _starter(database: Database, ringer: Ringer) -> Starter:
    """What starts the runs of deliveries: the two concerns do not know one another."""
    from esb_workers.delivery.call import WorkflowStarted
    from esb_workers.orchestration.from_message import Asked, MessageStarts

    starts = MessageStarts(database, ringer)

    def start(wanted: WorkflowStart) -> WorkflowStarted | None:
        message = wanted.message
        asked = Asked(
            wanted.delivery_id, wanted.workflow, wanted.version, wanted.payload, message.client_id,
            message.correlation_id, message.traceparent, message.priority,
        )  # fmt: skip
        told = starts.start(asked)
        return None if told is None else WorkflowStarted(*told)

    return start


def _node_name(pool: str) -> str:
    """What Flower and remote control call this process: no two may bear one name, so the host alone is too little."""
    return f"{pool}-{os.getpid()}@{socket.gethostname()}"


def _worker_class(app: Celery) -> Any:
    """Celery's worker, but for one thing: where `setproctitle` is installed it would rename the process, and the
    command line is where people and supervisors look for the role (`esb worker delivery`).
    """
    return type("Worker", (app.Worker,), {"set_process_status": lambda self, info: None})


def _serve(app: Celery, engine: Engine, settings: Settings) -> None:
    add_queue(app, engine.bell)

    @app.task(name=drain_task(engine.bell), ignore_result=True)  # type: ignore[untyped-decorator]
    def drain(*_args: Any, **_kwargs: Any) -> None:  # takes anything: a bell of another release must ring too
        engine.drain()

    def stop_claiming(**_: Any) -> None:
        engine.quiesce()

    signals.worker_shutting_down.connect(stop_claiming)
    for told_of_each_bell in ("celery.worker.strategy", "celery.app.trace"):
        logging.getLogger(told_of_each_bell).setLevel(max(logging.WARNING, logging.getLogger().level))
    engine.start()  # before the broker is even looked for: work goes on without it
    try:
        while not engine.stopping:
            _hear_bells(app, engine, settings)
            if not engine.stopping:
                # Celery gives up on an answer it has no name for, such as that of a demoted Redis, which has become
                # read-only. Bells are not worth a process: the engine goes on by polling meanwhile.
                log.error("the broker's answers make no sense; it is tried again")
                time.sleep(DEAF_PAUSE)
    finally:
        engine.stop(settings.worker_grace_seconds)


def _hear_bells(app: Celery, engine: Engine, settings: Settings) -> None:
    """Run Celery's worker until it is told to stop, or fails."""
    worker = _worker_class(app)(
        hostname=_node_name(engine.bell),
        pool="threads",
        concurrency=BELL_THREADS,
        queues=[engine.bell],
        without_gossip=True,
        without_mingle=True,
        task_events=True,
        heartbeat_interval=EVENT_HEARTBEAT,
        loglevel=settings.log_level,
        redirect_stdouts=False,
        quiet=True,
        consumer_cls=type("Bells", (BellConsumer,), {"hear": staticmethod(engine.hear)}),
    )
    worker.start()
