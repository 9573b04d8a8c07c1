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
    """Calls `renew` from its own thread. However often it is asked meanwhile, it does it once more."""

    def __init__(self, renew: Callable[[], None]) -> None:
        self._renew = renew
        self._asked = threading.Event()
        self._start = threading.Lock()
        self._thread: threading.Thread | None = None
        self._stopping = False

    def ask(self) -> None:
        """Have it done once from now on. Never blocks, never raises."""
        self._asked.set()
        if self._thread is None:
            self._ensure_thread()

    def close(self) -> None:
        """Stop the thread."""
        self._stopping = True
        self._asked.set()
        if self._thread is not None:
            self._thread.join(timeout=PATIENCE)

    def _ensure_thread(self) -> None:
        # Started late, by who first asks: a thread made before a fork would not exist in the child.
        with self._start:
            if self._thread is None and not self._stopping:
                self._thread = threading.Thread(target=self._loop, name="renewer", daemon=True)
                self._thread.start()

    def _loop(self) -> None:
        while True:
            self._asked.wait()
            self._asked.clear()  # before it is done: who asks from now on is not content with it
            if self._stopping:
                return
            try:
                self._renew()
            except Unavailable:
                log.info("routes could not be read anew; whoever needs them asks again")
            except Exception:
                log.exception("routes could not be read anew")
