"""Plug-ins by entry point: what an installed package adds to the bus, by name.

The groups are `esb.step_types`, `esb.transformations`, `esb.routing_strategies`, `esb.authenticators` and
`esb.transports`. What the
bus itself brings is registered the same way, in `setup.cfg`; `builtin` names it once more so that a plain checkout,
which has no entry points, works too.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import EntryPoint, entry_points
from typing import Any


def load(group: str, builtin: Mapping[str, str] | None = None) -> dict[str, Any]:
    """Name → loaded object of every plug-in in `group`, built-in ones first, then by name.

    `builtin` maps names to `module:object`. An installed plug-in of the same name replaces it, which is
    how a site swaps a built-in for its own. An import error is the plug-in's and is raised as it is.
    """
    found = {name: EntryPoint(name, value, group) for name, value in (builtin or {}).items()}
    found |= {point.name: point for point in sorted(entry_points(group=group), key=lambda p: p.name)}
    return {name: point.load() for name, point in found.items()}
