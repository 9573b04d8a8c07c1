"""One consumer: from the queue into the bus, a batch at a time, acknowledged when it is committed."""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable, Sequence
from typing import Final

from esb_workers import drill
from esb_workers.bus import Bus, NewMessage
from esb_workers.errors import EsbError, Unavailable
from esb_workers.listening.definition import Listener
from esb_workers.listening.incoming import Incoming
from esb_workers.listening.sources import Source, Sources
from esb_workers.registry.catalogue import Catalogue
from esb_workers.store import listeners
from esb_workers.store.engine import StaleRevision
from esb_workers.store.listeners import Parked
from esb_workers.transport.errors import CallFailed

log = logging.getLogger(__name__)

#: How long one look at the queue waits, seconds: a consumer that is told to stop does so within it.
LOOK: Final = 1.0
#: How often a batch is judged anew because the catalogue changed.
ATTEMPTS: Final = 5
#: Pauses before a broker that was lost is tried again, seconds.
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 30.0


class Changed(Exception):
    """The listener is no longer what this consumer knows: paused, changed or deleted."""


class Consumer(threading.Thread):
    """Consumes one listener's queue until it is told to stop."""

    def __init__(
        self,
        listener: Listener,
        slot: int,
        *,
        bus: Bus,
        sources: Sources,
        catalogue: Catalogue,
        max_bytes: int,
        may_act: Callable[[], bool],
        ended: Callable[[], None],
    ) -> None:
        super().__init__(name=f"listener-{listener.name}-{slot}", daemon=True)
        self.listener = listener
        self.slot = slot
        self._bus = bus
        self._sources = sources
        self._catalogue = catalogue
        self._max_bytes = max_bytes
        self._may_act = may_act
        self._ended = ended
        self._stopping = threading.Event()

    def stop(self) -> None:
        """Stop when the batch under way is done."""
        self._stopping.set()

    def run(self) -> None:
        """Consume; connect again, ever more slowly, when the broker is lost."""
        pause = FIRST_PAUSE
        try:
            while not self._stopping.is_set():
                began = time.monotonic()
                try:
                    self._consume()
                except Changed:
                    return
                except Exception as error:
                    self._note(error)
                pause = FIRST_PAUSE if time.monotonic() - began > LONGEST_PAUSE else min(pause * 2, LONGEST_PAUSE)
                self._stopping.wait(pause * random.uniform(0.5, 1))
        finally:
            self._ended()

    def _consume(self) -> None:
        source = self._sources.open(self.listener, self.slot)
        try:
            self._tell(None)
            while not self._stopping.is_set():
                batch = self._received(source)
                if batch:
                    self._accept(batch)
                    drill.crash_point(drill.AFTER_COMMIT_BEFORE_RING)
                    self._acknowledge(source, batch)
        finally:
            source.close()

    def _received(self, source: Source) -> list[Incoming]:
        found: list[Incoming] = []
        self._asked(source, lambda: found.extend(source.receive(self.listener.prefetch, LOOK)))
        return found

    def _acknowledge(self, source: Source, batch: Sequence[Incoming]) -> None:
        self._asked(source, lambda: source.acknowledge(batch))

    @staticmethod
    def _asked(source: Source, ask: Callable[[], None]) -> None:
        try:
            ask()
        except Exception as error:
            refusal = source.refused(error)
            if refusal is None:
                raise
            raise refusal from error

    # --- into the bus --------------------------------------------------------------------------------

    def _accept(self, batch: Sequence[Incoming]) -> None:
        """Accept a batch in one transaction; if something in it defies that, each on its own: it alone is parked."""
        if not self._may_act():
            raise Unavailable("the lease may have run out")
        try:
            self._accept_as_judged(batch)
        except (EsbError, Changed):
            raise
        except Exception as error:
            if len(batch) > 1:
                for one in batch:
                    self._accept([one])
                return
            log.exception("a message of listener %s could not be stored", self.listener.name)
            self._park(batch[0], f"{type(error).__name__}: it cannot be stored")

    def _accept_as_judged(self, batch: Sequence[Incoming]) -> None:
        """Accept; anew if the catalogue of types has changed meanwhile."""
        for _ in range(ATTEMPTS):
            try:
                return self._accept_together(batch)
            except StaleRevision:
                self._catalogue.refresh()
        raise Unavailable("the catalogue changes faster than it can be read")

    def _accept_together(self, batch: Sequence[Incoming]) -> None:
        good: list[tuple[Incoming, NewMessage]] = []
        parked: list[Parked] = []
        for incoming in batch:
            try:
                good.append((incoming, self.listener.message(incoming, self._max_bytes, self._catalogue.judge)))
            except EsbError as error:
                parked.append(parked_of(self.listener, incoming, error.detail))
        new = [message for _, message in good]
        with self._bus.database.raw_transaction() as cursor:
            if not listeners.hold(cursor, self.listener.id, self.listener.etag):
                raise Changed
            outcomes = self._bus.publish_in(cursor, new, None) if new else []
            words = [outcome.outcome for outcome in outcomes]
            for (incoming, message), word in zip(good, words, strict=True):
                if word == "conflict":
                    reason = f"its id {message.message_id} belongs to another message"
                    parked.append(parked_of(self.listener, incoming, reason))
            listeners.park(cursor, parked)
            listeners.count(cursor, self.listener.id, words.count("accepted"), words.count("duplicate"), len(parked))
        if new:
            self._bus.committed(new, outcomes)

    def _park(self, incoming: Incoming, reason: str) -> None:
        with self._bus.database.raw_transaction() as cursor:
            listeners.park(cursor, [parked_of(self.listener, incoming, reason)])
            listeners.count(cursor, self.listener.id, 0, 0, 1)

    # --- what is known of it -------------------------------------------------------------------------

    def _note(self, error: Exception) -> None:
        told = f"{type(error).__name__}: {error.detail}" if isinstance(error, EsbError) else type(error).__name__
        if isinstance(error, CallFailed | Unavailable):
            log.warning("listener %s: %s", self.listener.name, told)
        else:
            log.error("listener %s stumbled", self.listener.name, exc_info=error)
        self._tell(told)

    def _tell(self, error: str | None) -> None:
        try:
            with self._bus.database.cursor() as cursor:
                listeners.note(cursor, self.listener.id, error)
        except Unavailable:
            pass  # it is told when it happens again


def parked_of(listener: Listener, incoming: Incoming, reason: str) -> Parked:
    """The record of a message that can never become one of ours as things are."""
    return Parked(listener.id, reason[:2000].replace("\0", ""), incoming.body, incoming.headers, incoming.properties)
