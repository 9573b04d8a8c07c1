"""What a route says about each of its destinations, kept ready: routes are asked for every delivery."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from esb_workers.expressions.templates import Template, compile_template
from esb_workers.registry.retries import RetryPolicy, parse_retry_policy
from esb_workers.registry.selection import WORKFLOW
from esb_workers.store import revision, routes
from esb_workers.store.engine import Database
from esb_workers.store.routes import RouteRow


@dataclass(frozen=True, slots=True, eq=False)  # the same one or another: it is looked up by, for every delivery
class Plan:
    """How a delivery is to be made, as far as its route says. None: the service decides. Milliseconds."""

    path: Template | None = None
    method: str | None = None
    timeout: int | None = None
    retry_policy: RetryPolicy | None = None
    blocks_when_dead: bool = False


#: For deliveries without a route, such as replies.
NO_PLAN: Final = Plan()


class RouteBook:
    """The plans of routes, deleted ones included. One a process; safe for threads."""

    def __init__(self) -> None:
        self._plans: dict[str, Mapping[tuple[int, str], Plan]] = {}
        self._fallbacks: dict[str, Plan] = {}
        self._revision = -1
        self._routes = -1
        self._lock = threading.Lock()

    def refresh(self, database: Database, at_least: int, route_ids: Iterable[str]) -> None:
        """Know these routes as of a revision. Raises Unavailable."""
        wanted = set(route_ids)
        if self._revision >= at_least and wanted <= self._fallbacks.keys():
            return
        with self._lock, database.cursor() as cursor:
            if self._revision < at_least:
                topics = revision.by_topic(cursor)
                if topics["routes"] != self._routes:
                    self._plans, self._fallbacks = {}, {}
                    self._routes = topics["routes"]
                self._revision = sum(topics.values())
            missing = wanted - self._fallbacks.keys()
            found = routes.by_id(cursor, list(missing)) if missing else {}
            for route_id in missing:
                self._keep(route_id, found.get(route_id))

    def plan(self, route_id: str | None, index: int | None, service: str) -> Plan:
        """The plan of a delivery: destination `index` of the route, as long as it still is that service."""
        if route_id is None:
            return NO_PLAN
        plans = self._plans.get(route_id, {})
        return plans.get((index if index is not None else -1, service), self._fallbacks.get(route_id, NO_PLAN))

    def _keep(self, route_id: str, row: RouteRow | None) -> None:
        body: Mapping[str, Any] = row.body if row else {}
        self._plans[route_id] = {
            (i, _service(item)): _plan(body, item if isinstance(item, dict) else {})
            for i, item in enumerate(body.get("destinations", ()))
        }
        self._fallbacks[route_id] = _plan(body, {})


def _service(item: Any) -> str:
    if not isinstance(item, dict):
        return str(item)
    if "workflow" not in item:
        return str(item["service"])
    version = item.get("version")
    return f"{WORKFLOW}{item['workflow']}@{version}" if version else f"{WORKFLOW}{item['workflow']}"


def _plan(route: Mapping[str, Any], destination: Mapping[str, Any]) -> Plan:
    # Policy and time-out are taken whole from the nearest that has one: destination, then route.
    policy = destination.get("retryPolicy") or route.get("retryPolicy")
    path = destination.get("path")
    return Plan(
        path=compile_template(path, "path") if path else None,
        method=destination.get("method"),
        timeout=destination.get("timeout") or route.get("timeout"),
        retry_policy=parse_retry_policy(policy) if policy else None,
        blocks_when_dead=destination.get("onDead") == "block",
    )
