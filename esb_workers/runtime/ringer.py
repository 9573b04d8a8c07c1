"""Rings a pool's bell after a commit: best effort, off the caller's path.

One thread a process: wait, clear, `if fewer than two bells are queued: send one`, pause, again; the long pause is a
queue's own. The queue itself is the flag: a bell is skipped only if one lies in the queue at that moment, and whoever
pops that one claims with a later snapshot, so it sees the row. Of the protocols that were model-checked, this is the
one that strands nothing after a lost bell.
"""

from __future__ import annotations

import logging
import threading
import time
from typing import Any, Final

from celery import Celery
from kombu import Connection

from esb_workers.app import add_queue
from esb_workers.queues import POOLS, drain_task
from esb_workers.runtime.hints import Voice
from esb_workers.runtime.teller import CHANNELS

log = logging.getLogger(__name__)

#: More bells in a queue than this are not added to.
ENOUGH_BELLS = 2
#: Pause after a ring, seconds: what is committed meanwhile shares the next bell.
PAUSE = 0.003
#: A queue in which bells lie that nobody has heard yet is not looked at again for so long, seconds: whoever is to hear
#: them is at work already. Longer where runtime.teller tells of single rows: in a steady flow these looks would cost a
#: tenth of what accepting costs.
LONG_PAUSE = 0.01
TOLD_PAUSE = 0.1
#: Pause after a failure, seconds. Work goes on by polling.
RETRY_PAUSE = 1.0
#: A broker that does not answer is given up on after this, seconds.
TIMEOUT = 1.0


class Ringer:
    """Rings bells from its own thread. `ring` costs a microsecond, never blocks and never raises."""

    def __init__(self, app: Celery) -> None:
        self._app = app
        self._wanted: dict[str, bool] = dict.fromkeys(POOLS, False)
        self._not_before: dict[str, float] = {}  # monotonic moment of the next look at a queue that had bells enough
        self._event = threading.Event()
        self._stopping = False
        self._thread: threading.Thread | None = None
        self._start = threading.Lock()
        self._connection: Connection | None = None
        self.broker_url: Final = str(app.conf.broker_url or "")
        #: What a word is given by that saves the wait for a bell.
        self.voice = Voice(self.broker_url)
        #: Bells that could not be sent; shown in /metrics.
        self.failures = 0

    def ring(self, pool: str) -> None:
        """Say that rows of this pool, or queue of steps, were committed."""
        if self._wanted.get(pool):
            return  # by somebody the thread has yet to see to: it will look later than our commit
        self._wanted[pool] = True
        self._event.set()
        if self._thread is None:
            self._ensure_thread()

    def close(self) -> None:
        """Stop the thread; bells not yet sent are dropped."""
        self._stopping = True
        self._event.set()
        if self._thread is not None:
            self._thread.join(timeout=TIMEOUT * 2)
        self.voice.close()

    def _ensure_thread(self) -> None:
        # Started late, by the first ring: a thread made before a fork would not exist in the child.
        with self._start:
            if self._thread is None:
                self._thread = threading.Thread(target=self._loop, name="ringer", daemon=True)
                self._thread.start()

    def _loop(self) -> None:
        try:
            self._ring_until_stopped()
        finally:
            if self._connection is not None:
                _hang_up(self._connection)

    def _ring_until_stopped(self) -> None:
        wait: float | None = None
        while not self._stopping:
            self._event.wait(wait)
            self._event.clear()
            try:
                wait = self._ring_wanted()
                self.voice.ensure()  # here, where nobody waits
                time.sleep(PAUSE)
            except Exception as error:  # whatever the broker's client raises: the poll carries the work meanwhile
                self._failed(error)
                time.sleep(RETRY_PAUSE)
                wait = 0.0 if any(self._wanted.values()) else None

    def _ring_wanted(self) -> float | None:
        """Ring where it is wanted; seconds until a queue that is to be left alone until then may be looked at."""
        waits: list[float] = []
        for pool in [pool for pool, wanted in tuple(self._wanted.items()) if wanted]:
            if (wait := self._not_before.get(pool, 0.0) - time.monotonic()) > 0:
                waits.append(wait)
                continue
            # Cleared before the bell: a ring that comes between the two wakes the next turn.
            self._wanted[pool] = False
            if not self._ring(pool):
                pause = TOLD_PAUSE if pool in CHANNELS else LONG_PAUSE
                self._not_before[pool] = time.monotonic() + pause
        return min(waits, default=None)

    def _ring(self, pool: str) -> bool:
        if self._connection is None:
            self._connection = self._connect()
        channel = self._connection.default_channel
        if add_queue(self._app, pool):
            self._app.amqp.queues[pool].bind(channel).declare()
        if _bells(channel, pool) >= ENOUGH_BELLS:
            return False
        with self._app.amqp.Producer(channel, auto_declare=False) as producer:
            self._app.send_task(drain_task(pool), queue=pool, producer=producer, retry=False, ignore_result=True)
        return True

    def _connect(self) -> Connection:
        options = dict(self._app.conf.broker_transport_options)
        options["socket_timeout" if "socket_timeout" in options else "read_timeout"] = TIMEOUT
        connection = self._app.connection_for_write(transport_options=options, connect_timeout=TIMEOUT)
        try:
            connection.ensure_connection(max_retries=0, timeout=TIMEOUT)
            queues = self._app.amqp.queues
            for pool in queues:
                queues[pool].bind(connection.default_channel).declare()
        except BaseException:
            _hang_up(connection)
            raise
        return connection

    def _failed(self, error: Exception) -> None:
        self.failures += 1
        if self.failures == 1 or self.failures % 60 == 0:
            log.warning("the broker cannot be rung; work goes on by polling: %s", error)
        self.voice.hush()  # it may not have noticed
        if self._connection is not None:
            _hang_up(self._connection)
            self._connection = None


def _hang_up(connection: Connection) -> None:
    """Close a connection with all it holds. kombu leaves its poller to the garbage collector, which is in no hurry:
    with the broker gone for an hour, a file descriptor every two seconds.
    """
    poller = getattr(getattr(connection.transport, "cycle", None), "poller", None)
    try:
        connection.release()
        if poller is not None:
            poller.close()
    except Exception:  # it is broken already
        pass


def _bells(channel: Any, queue: str) -> int:
    """How many bells lie in a queue."""
    if hasattr(channel, "brpop_timeout"):  # kombu's Redis: asked past it, for it makes a new client for each look
        return int(channel.client.llen(queue))
    return int(channel.queue_declare(queue, passive=True).message_count)
