"""A thread that does one thing again whenever it is asked to: for what requests would otherwise wait for."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from esb_workers.errors import Unavailable

log = logging.getLogger(__name__)

#: How long `close` waits for what is under way, seconds.
PATIENCE = 5.0


class Renewer:
    """Calls `renew` from its own thread. However many ask meanwhile, it does it once more for all of them."""

    def __init__(self, renew: Callable[[], None]) -> None:
        self._renew = renew
        self._changed = threading.Condition()
        #: How often it was asked, and how many of these it has answered.
        self._asked = self._done = 0
        #: Whether one that is under way has kept somebody waiting for too long: nobody else waits for it.
        self._late = False
        self._thread: threading.Thread | None = None
        self._stopping = False

    def ask(self) -> int:
        """Have it done once from now on; the number to `wait` for. Never raises."""
        with self._changed:
            self._asked += 1
            # Started late, by who first asks: a thread made before a fork would not exist in the child.
            if self._thread is None and not self._stopping:
                self._thread = threading.Thread(target=self._loop, name="renewer", daemon=True)
                self._thread.start()
            self._changed.notify_all()
            return self._asked

    def wait(self, seconds: float) -> None:
        """Have it done once from now on, and wait for that, so many seconds at most; not if another did so in vain."""
        number = self.ask()
        with self._changed:
            if not self._late and not self._changed.wait_for(lambda: self._done >= number, seconds):
                self._late = True

    def close(self) -> None:
        """Stop the thread."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
        if self._thread is not None:
            self._thread.join(timeout=PATIENCE)

    def _loop(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._stopping or self._asked > self._done)
                if self._stopping:
                    return
                asked = self._asked  # whoever asks from now on is not content with what begins here
            try:
                self._renew()
            except Unavailable:
                log.info("routes could not be read anew; whoever needs them asks again")
            except Exception:
                log.exception("routes could not be read anew")
            with self._changed:
                self._done, self._late = asked, False
                self._changed.notify_all()
