"""Python's cyclic garbage collector, set for processes that serve for weeks.

By default it walks the young objects every 700 allocations and, now and then, everything that was ever loaded. What a
request or a delivery leaves behind is freed by reference counts anyway; only the rare cycle waits for the collector.
"""

from __future__ import annotations

import gc
from typing import Final

#: Allocations between looks at the young objects, and how often older ones are looked at with them.
_THRESHOLDS: Final = (50_000, 20, 50)


def settle() -> None:
    """Call once, when a process has loaded what it needs: that is never looked at again."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(*_THRESHOLDS)
