"""Step types by name. Each is one file here, or a plug-in of the entry point group `esb.step_types`."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Final

from esb_workers import plugins
from esb_workers.orchestration.steps.base import StepType

GROUP: Final = "esb.step_types"
_HERE: Final = "esb_workers.orchestration.steps"

#: What the bus brings. The same lines stand as entry points in setup.cfg.
BUILTIN: Final[Mapping[str, str]] = {
    "service_call": f"{_HERE}.service_call:ServiceCall",
    "publish": f"{_HERE}.publish:Publish",
    "switch": f"{_HERE}.switch:Switch",
    "parallel": f"{_HERE}.parallel:Parallel",
    "foreach": f"{_HERE}.foreach:ForEach",
    "loop": f"{_HERE}.loop:Loop",
    "transform": f"{_HERE}.transform:Transform",
    "set": f"{_HERE}.set:Set",
    "wait": f"{_HERE}.wait:Wait",
    "wait_for_signal": f"{_HERE}.wait_for_signal:WaitForSignal",
    "sub_workflow": f"{_HERE}.sub_workflow:SubWorkflow",
    "log": f"{_HERE}.log:Log",
    "fail": f"{_HERE}.fail:Fail",
    "succeed": f"{_HERE}.succeed:Succeed",
}


@lru_cache(maxsize=1)
def step_types() -> Mapping[str, StepType]:
    """Every step type there is, one object each."""
    loaded = plugins.load(GROUP, BUILTIN)
    # A class is its own maker; a function decorated by `functions.step` carries one.
    return {name: getattr(type_, "step_type", type_)() for name, type_ in loaded.items()}
