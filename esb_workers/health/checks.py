"""A check from the look to the record, by the clock or by hand."""

from __future__ import annotations

from typing import Any

from esb_workers.errors import Conflict, NotFound
from esb_workers.health.judge import HEARTBEAT_THRESHOLDS, Health, Thresholds, Verdict, judge
from esb_workers.health.probe import probe
from esb_workers.store import checks
from esb_workers.store.checks import Finding, Recorded, State, Watched
from esb_workers.store.engine import Database
from esb_workers.transport.http import HttpCaller

HEARTBEAT = "heartbeat"


def check_now(database: Database, caller: HttpCaller, service_id: str) -> Recorded:
    """Look at an instance at once and record it. Raises NotFound, Conflict when it is not one that is looked at."""
    watched = _watched(database, service_id)
    if is_heartbeat(watched):
        raise Conflict("this service sends heartbeats: it is not probed", code="not_probed")
    return _kept(record(database, watched, probe(caller, watched.health_check)))


def heartbeat(database: Database, service_id: str) -> Recorded:
    """Record a sign of life. Raises NotFound, Conflict when the instance's health is not watched by heartbeats."""
    watched = _watched(database, service_id)
    if not is_heartbeat(watched):
        raise Conflict("this service's health check is not of type heartbeat", code="not_heartbeat")
    return _kept(record(database, watched, Finding(True)))


def record(database: Database, watched: Watched, finding: Finding) -> Recorded | None:
    """Judge and record a finding in one transaction; None if the instance is gone."""
    thresholds = thresholds_of(watched.health_check)
    beat = is_heartbeat(watched) and finding.ok
    with database.raw_transaction() as cursor:
        return checks.record(
            cursor, watched.id, finding, lambda state: _judged(state, finding, thresholds), heartbeat=beat
        )


def is_heartbeat(watched: Watched) -> bool:
    """Whether the instance is to tell of itself, rather than being looked at."""
    return watched.health_check.get("type") == HEARTBEAT


def thresholds_of(health_check: dict[str, Any]) -> Thresholds:
    """How many checks in a row it takes."""
    if health_check.get("type") == HEARTBEAT:
        return HEARTBEAT_THRESHOLDS
    return Thresholds(health_check.get("healthyThreshold", 2), health_check.get("unhealthyThreshold", 3))


def verdict_of(state: State) -> Verdict:
    """The judge's word for what is stored."""
    health: Health = state.health  # type: ignore[assignment]  # the table's constraint holds the four words
    return Verdict(health, state.successes, state.failures)


def _judged(state: State, finding: Finding, thresholds: Thresholds) -> State:
    after = judge(verdict_of(state), finding.ok, thresholds)
    return State(after.health, after.successes, after.failures)


def _watched(database: Database, service_id: str) -> Watched:
    with database.cursor() as cursor:
        watched = checks.load(cursor, [service_id]).get(service_id)
        if watched is None:
            cursor.execute("select 1 from service where id = %s", (service_id,))
            if cursor.fetchone() is None:
                raise NotFound("there is no such service")
            raise Conflict("this service has no healthCheck", code="no_health_check")
    return watched


def _kept(recorded: Recorded | None) -> Recorded:
    if recorded is None:
        raise NotFound("there is no such service")
    return recorded
