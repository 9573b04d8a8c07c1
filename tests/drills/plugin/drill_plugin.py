"""A transformation that does harm, for the drill on poison: `{"type": "drill_harm"}` does what the payload says."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from typing import Any

from esb_workers.routing.transform import Form


def harm(config: Mapping[str, Any], path: str) -> Callable[[Form], Form]:
    """Die, fail, or take long, if the payload says so."""

    def step(form: Form) -> Form:
        match form.payload.get("harm"):
            case "exit":
                os._exit(9)
            case "raise":
                raise MemoryError("more than there is")
            case "slow":
                time.sleep(2)
        return form

    return step
