"""A Python child ends when its parent does, also where the kernel has no parent-death signal."""

from __future__ import annotations

import os
import threading
import time
from typing import Final

#: The environment variable that names the parent's process id; set by `esb up` for its children.
PARENT_VARIABLE: Final = "BUS_PARENT_PID"


def end_with_parent(every: float = 1.0) -> None:
    """If `esb up` started this process, end it (without ceremony) within `every` seconds of the parent's end."""
    parent = os.environ.get(PARENT_VARIABLE, "")
    if parent.isdigit() and os.getppid() == int(parent):
        threading.Thread(target=_watch, args=(int(parent), every), name="parent-watch", daemon=True).start()


def _watch(parent: int, every: float) -> None:
    while os.getppid() == parent:
        time.sleep(every)
    os._exit(1)
