"""Checks of health: what is to be checked, what came of it, when the next one is due."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from esb_workers.store.engine import Cursor
from esb_workers.store.ids import new_id
from esb_workers.store.json import dumps


class Watched(NamedTuple):
    """An instance whose health is watched. `heard_ago`: seconds since its last heartbeat, or since it was changed."""

    id: str
    name: str
    status: str
    endpoint: str
    health_check: dict[str, Any]
    health: str
    successes: int
    failures: int
    heard_ago: float


class Finding(NamedTuple):
    """What one check found."""

    ok: bool
    latency_ms: int | None = None
    status_code: int | None = None
    error: str | None = None


class State(NamedTuple):
    """Health, and checks in a row that went well or badly."""

    health: str
    successes: int
    failures: int


class Recorded(NamedTuple):
    """A check as it was recorded, and the state it led to."""

    id: str
    at: datetime
    finding: Finding
    state: State
    changed: bool


def load(cursor: Cursor, ids: Sequence[str]) -> dict[str, Watched]:
    """Those of these instances that have a health check."""
    cursor.execute(
        "select s.id, s.name, s.status, s.endpoint, s.health_check, st.health, st.successes, st.failures,"
        " extract(epoch from now() - greatest(st.heartbeat_at, s.updated_at))::float8"
        " from service s join service_state st on st.service_id = s.id"
        " where s.id = any(%s::uuid[]) and s.health_check is not null",
        (list(ids),),
    )
    return {row[0]: Watched(*row) for row in cursor.fetchall()}


def record(
    cursor: Cursor, service_id: str, finding: Finding, judge: Callable[[State], State], *, heartbeat: bool = False
) -> Recorded | None:
    """Record a check inside the caller's transaction; None if the instance is gone.

    The state is judged under its row's lock: a check by hand and one by the clock may meet.
    """
    cursor.execute(
        "select health, successes, failures from service_state where service_id = %s for update", (service_id,)
    )
    row = cursor.fetchone()
    if row is None:
        return None
    before = State(*row)
    after = judge(before)
    changed = before.health != after.health
    check_id = new_id()
    cursor.execute(
        "insert into health_check (id, service_id, at, ok, latency_ms, status_code, error, health, changed)"
        " values (%s, %s, clock_timestamp(), %s, %s, %s, %s, %s, %s) returning at",
        (check_id, service_id, *finding, after.health, changed),
    )
    at: datetime = cursor.fetchone()[0]  # type: ignore[index]
    cursor.execute(
        "update service_state set health = %s, successes = %s, failures = %s, last_check = %s,"
        " health_changed_at = case when %s then %s else health_changed_at end,"
        " heartbeat_at = case when %s then %s else heartbeat_at end where service_id = %s",
        (*after, _last_check(at, finding), changed, at, heartbeat, at, service_id),
    )
    if changed:
        cursor.execute("select esb_changed('services')")
    return Recorded(check_id, at, finding, after, changed)


def _last_check(at: datetime, finding: Finding) -> str:
    return dumps(
        {
            "at": at.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "ok": finding.ok,
            "latencyMs": finding.latency_ms,
            "statusCode": finding.status_code,
            "error": finding.error,
        }
    )


def reschedule(cursor: Cursor, worker: int, job_id: str, attempt: int, interval_ms: int) -> bool:
    """Put a check's job off until `interval_ms` after it was started; False if it is no longer ours.

    Sooner, if the interval was shortened meanwhile. The job ends when its instance is gone or is not to be checked any
    more. Losses are forgotten: a job that ends well is no poison.
    """
    cursor.execute(
        "with mine as (select id from job where id = %(id)s and attempt = %(attempt)s and worker_id = %(worker)s"
        "  and state = 'f' for update),"
        " wanted as (select id, (health_check->>'interval')::float8 / 1000 seconds from service"
        "   where id = %(id)s and health_check is not null),"
        " gone as (delete from job where id in (select id from mine) and not exists (select 1 from wanted)),"
        " next as (update job set state = 's', worker_id = null, losses = 0,"
        "   run_at = greatest(now(), started_at + make_interval(secs => least(%(seconds)s, (select seconds from wanted))))"
        "   where id in (select id from mine) and exists (select 1 from wanted))"
        " select count(*) from mine",
        {"id": job_id, "attempt": attempt, "worker": worker, "seconds": interval_ms / 1000},
    )
    return bool(cursor.fetchone()[0])  # type: ignore[index]


def adopt(cursor: Cursor) -> int:
    """The net: a job for every instance that is to be checked and has none, or whose job was given up; how many."""
    cursor.execute(
        "insert into job (id, pool, lane_id) select s.id, 4, esb_lane(4::smallint, s.name) from service s"
        " where s.health_check is not null and not exists (select 1 from job j where j.id = s.id)"
        " on conflict (id) do nothing"
    )
    adopted = cursor.rowcount
    cursor.execute("update job set state = 'r', losses = 0, run_at = now() where pool = 4 and state = 'b'")
    return adopted + cursor.rowcount
