"""Executions and their strands: each function is one call of the SQL function it is named after (70_orchestration.sql)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from esb_workers.store.engine import Cursor
from esb_workers.store.json import dumps

_EVENTS = "%(types)s::text[], %(paths)s::text[], %(visits)s::int[], %(iterations)s::int[], %(data)s::text[]"


class EventRow(NamedTuple):
    """One journal entry on its way in: type, path, visit, iteration, JSON text."""

    type: str
    path: str | None
    visit: int | None
    iteration: int | None
    data: str | None


class Signs(NamedTuple):
    """What others want of a strand: `control` is 'c' (stop) or 'p' (pause); `inbox` counts calls for attention."""

    control: str | None
    inbox: int
    parked: bool = False
    revision: int = 0  # of the registrations


class Loaded(NamedTuple):
    """All that is needed to go on with a strand."""

    now: datetime
    control: str | None
    inbox: int
    cursor: dict[str, Any] | None
    parent_job: str | None
    parent_path: str | None
    execution_id: str
    workflow_id: str
    client_id: str | None
    waited_for: bool  # by a strand of another run
    status: str
    correlation_id: str
    traceparent: str | None
    input: str
    deadline: datetime | None
    undo: bool  # cancelled with compensation
    skips: list[str]  # steps that are to be passed by
    allowed_services: list[str] | None
    revision: int
    seed: str | None
    snapshot_n: int | None
    snapshot: str | None
    events: list[list[Any]]


class StrandKey(NamedTuple):
    """A strand and the fence under which this worker holds it."""

    job: str
    attempt: int


def load(cursor: Cursor, key: StrandKey) -> Loaded | None:
    """Everything about a strand in one round trip; None if it is no longer ours."""
    cursor.execute("select * from esb_load(%s, %s)", key)
    row = cursor.fetchone()
    return Loaded(*row) if row else None


def peek(cursor: Cursor, strand: str) -> Loaded | None:
    """The same of a strand that nobody has claimed and whose row the caller has locked."""
    cursor.execute("select * from esb_load(%s, null)", (strand,))
    row = cursor.fetchone()
    return Loaded(*row) if row else None


def journal(cursor: Cursor, execution_id: str, strand: str) -> tuple[tuple[int, str] | None, list[list[Any]]]:
    """A strand's snapshot (n, state), if any, and the events after it."""
    cursor.execute("select n, state from snapshot where job_id = %s", (strand,))
    snapshot = cursor.fetchone()
    cursor.execute(
        "select n, type, path, visit, iteration, data from event where execution_id = %s and job_id = %s and n > %s order by n",
        (execution_id, strand, snapshot[0] if snapshot else 0),
    )
    return snapshot, [list(row) for row in cursor.fetchall()]


class Transition(NamedTuple):
    """One move of a strand: events numbered from `n`. With a control set, only the first `stand` of them are kept."""

    key: StrandKey
    n: int
    events: Sequence[EventRow]
    stand: int
    lease_seconds: float
    snapshot: str | None


def step(cursor: Cursor, move: Transition) -> Signs | None:
    """One transition; None: the lease is lost."""
    cursor.execute(
        f"select * from esb_step(%(job)s, %(attempt)s, %(n)s, %(stand)s, {_EVENTS}, make_interval(secs => %(lease)s), %(snapshot)s)",
        {
            **_columns(move.key, move.n, move.events),
            "stand": move.stand,
            "lease": move.lease_seconds,
            "snapshot": move.snapshot,
        },
    )
    row = cursor.fetchone()
    return Signs(row[0], row[1], False, row[2]) if row else None


def steps(cursor: Cursor, moves: Sequence[Transition]) -> list[Signs | None]:
    """Transitions in one statement, of at most one strand of each run; one answer each, in order."""
    rows = [
        {
            "i": i,
            "job": move.key.job,
            "attempt": move.key.attempt,
            "n": move.n,
            "stand": move.stand,
            "lease": move.lease_seconds,
            "snapshot": move.snapshot,
            "events": [[*event] for event in move.events],
        }
        for i, move in enumerate(moves)
    ]
    cursor.execute("select i, control, inbox, rev from esb_steps(%s::json)", (dumps(rows),))
    found: list[Signs | None] = [None] * len(moves)
    for i, control, inbox, revision in cursor.fetchall():
        found[i] = Signs(control, inbox, False, revision)
    return found


def park(
    cursor: Cursor,
    key: StrandKey,
    n: int,
    events: Sequence[EventRow],
    *,
    inbox: int,
    run_at: datetime | None,
    signal: str | None,
) -> Signs | None:
    """Let go until `run_at`, or until woken; None: the lease is lost."""
    cursor.execute(
        f"select * from esb_park(%(job)s, %(attempt)s, %(inbox)s, %(n)s, {_EVENTS}, %(run_at)s, %(signal)s)",
        {**_columns(key, n, events), "inbox": inbox, "run_at": run_at, "signal": signal},
    )
    return _signs(cursor.fetchone())


def _signs(row: Any) -> Signs | None:
    return Signs(*row) if row else None


def halt(cursor: Cursor, key: StrandKey) -> bool:
    """Stop a strand that is wanted to pause."""
    cursor.execute("select esb_halt(%s, %s)", key)
    return bool(cursor.fetchone()[0])  # type: ignore[index]


def fork(
    cursor: Cursor,
    key: StrandKey,
    n: int,
    events: Sequence[EventRow],
    *,
    inbox: int,
    run_at: datetime | None,
    scope: Mapping[str, Any],
    kids: Sequence[tuple[str, Mapping[str, Any]]],
) -> Signs | None:
    """Park and make the children appear; `scope` has path, need, tolerated, total, seed. None: the lease is lost."""
    cursor.execute(
        f"select * from esb_fork(%(job)s, %(attempt)s, %(inbox)s, %(n)s, {_EVENTS}, %(run_at)s, %(path)s, %(need)s,"
        " %(tolerated)s, %(total)s, %(seed)s, %(kids)s::uuid[], %(cursors)s::text[])",
        {
            **_columns(key, n, events),
            **scope,
            "inbox": inbox,
            "run_at": run_at,
            "kids": [kid for kid, _ in kids],
            "cursors": [dumps(cursor_) for _, cursor_ in kids],
        },
    )
    return _signs(cursor.fetchone())


def join(cursor: Cursor, key: StrandKey, n: int, events: Sequence[EventRow], *, ok: bool) -> bool:
    """End a child; whether that woke its parent. Raises Superseded."""
    cursor.execute(
        f"select esb_join(%(job)s, %(attempt)s, %(n)s, {_EVENTS}, %(ok)s)", {**_columns(key, n, events), "ok": ok}
    )
    return bool(cursor.fetchone()[0])  # type: ignore[index]


def take(cursor: Cursor, key: StrandKey, n: int, events: Sequence[EventRow], count: int) -> tuple[int, int] | None:
    """The next indexes for a runner, [lo, hi), its events written; None: no more, nothing written. Raises Superseded."""
    cursor.execute(
        f"select lo, hi from esb_take(%(job)s, %(attempt)s, %(n)s, {_EVENTS}, %(count)s)",
        {**_columns(key, n, events), "count": count},
    )
    return cursor.fetchone()


def item_failed(cursor: Cursor, key: StrandKey, n: int, events: Sequence[EventRow]) -> Signs:
    """Journal and count a failed item. Raises Superseded."""
    cursor.execute(f"select * from esb_item_failed(%(job)s, %(attempt)s, %(n)s, {_EVENTS})", _columns(key, n, events))
    return Signs(*cursor.fetchone())  # type: ignore[misc]


def cull(cursor: Cursor, strand: str, path: str | None) -> int:
    """Stop the children of a scope that no longer needs them."""
    cursor.execute("select esb_cull(%s, %s)", (strand, path))
    return int(cursor.fetchone()[0])  # type: ignore[index]


def leave(cursor: Cursor, key: StrandKey, n: int, events: Sequence[EventRow]) -> bool:
    """A stopped strand's last word."""
    cursor.execute(f"select esb_leave(%(job)s, %(attempt)s, %(n)s, {_EVENTS})", _columns(key, n, events))
    return bool(cursor.fetchone()[0])  # type: ignore[index]


def finish(
    cursor: Cursor,
    key: StrandKey,
    n: int,
    events: Sequence[EventRow],
    *,
    status: str,
    started: str | None,
    context: str,
    output: str | None,
    error: str | None,
    error_class: str | None,
) -> str:
    """The last transition of a run: 'ok', or the status that forbids it. Raises Superseded."""
    cursor.execute(
        f"select esb_finish(%(job)s, %(attempt)s, %(n)s, {_EVENTS}, %(status)s, %(started)s::timestamptz, %(context)s, %(output)s,"
        " %(error)s, %(class)s)",
        {
            **_columns(key, n, events),
            "status": status,
            "started": started,
            "context": context,
            "output": output,
            "error": error,
            "class": error_class,
        },
    )
    return str(cursor.fetchone()[0])  # type: ignore[index]


def hand(cursor: Cursor, key: StrandKey, queue: str | None) -> bool:
    """Give a strand to the workers of a queue of steps (None: back to the pool); False: look again."""
    cursor.execute("select esb_hand(%s, %s, %s)", (*key, queue))
    return bool(cursor.fetchone()[0])  # type: ignore[index]


def reclaim(cursor: Cursor) -> int:
    """Take back strands whose run is over its deadline and whose queue has no worker for them; how many."""
    cursor.execute("select esb_reclaim()")
    return int(cursor.fetchone()[0])  # type: ignore[index]


def exhaust(cursor: Cursor, key: StrandKey, n: int, events: Sequence[EventRow], told: str) -> str:
    """Write, and pause the run: 'ok', or the status it has ended with. Raises Superseded."""
    cursor.execute(
        f"select esb_exhaust(%(job)s, %(attempt)s, %(n)s, {_EVENTS}, %(told)s)",
        {**_columns(key, n, events), "told": told},
    )
    return str(cursor.fetchone()[0])  # type: ignore[index]


def release(cursor: Cursor, key: StrandKey, seconds: float) -> None:
    """Give a strand back untouched, to be claimed again in a while: something about us failed, not about it."""
    cursor.execute(
        "update job set state = 's', worker_id = null, run_at = now() + make_interval(secs => %s)"
        " where id = %s and attempt = %s and state = 'f'",
        (seconds, *key),
    )


class ScopeRow(NamedTuple):
    """Where a fork stands."""

    kids: int
    open: int
    need: int
    failed: int
    tolerated: int
    closed: bool


def scope(cursor: Cursor, strand: str, path: str) -> ScopeRow | None:
    """A strand's scope."""
    cursor.execute(
        "select kids, open, need, failed, tolerated, closed from scope where job_id = %s and path = %s", (strand, path)
    )
    row = cursor.fetchone()
    return ScopeRow(*row) if row else None


def endings(cursor: Cursor, execution_id: str, path: str, fork: int) -> list[tuple[int, str, str]]:
    """How the children of a fork ended: (index, type, JSON text) by index. The children journal it under its path."""
    cursor.execute(
        "select iteration, type, data from event where execution_id = %s and path = %s"
        " and type in ('branch.completed', 'branch.failed', 'item.completed', 'item.failed') and visit = %s order by iteration",
        (execution_id, path, fork),
    )
    return list(cursor.fetchall())


def signal_take(cursor: Cursor, key: StrandKey, name: str, visit: int) -> tuple[str | None] | None:
    """(payload,) of the signal that is this visit's; None if there is none yet. Raises Superseded."""
    cursor.execute("select payload from esb_signal_take(%s, %s, %s, %s)", (*key, name, visit))
    return cursor.fetchone()


def called_back(cursor: Cursor, execution_id: str, digest: bytes, name: str, payload: str) -> str | None:
    """Keep what a callback brings: 'ok', 'used', None (no such run), or the status of a run that is over."""
    cursor.execute("select esb_callback(%s, %s, %s, %s)", (execution_id, digest, name, payload))
    row = cursor.fetchone()
    return row[0] if row else None


def completed(cursor: Cursor, execution_id: str, step_ids: Sequence[str]) -> list[tuple[str, str, str]]:
    """(type, path, JSON text) of every completed visit of these steps and of every compensation, in order."""
    cursor.execute(
        "select type, path, data from event where execution_id = %s and (type = 'step.compensated'"
        " or type = 'step.completed' and substring(path from '[^/]*$') = any(%s)) order by seq",
        (execution_id, list(step_ids)),
    )
    return list(cursor.fetchall())


def outcome(cursor: Cursor, execution_id: str) -> tuple[str, str | None, str | None] | None:
    """(status, output, error) of a run, JSON texts."""
    cursor.execute("select status, output, error from execution where id = %s", (execution_id,))
    return cursor.fetchone()


def poison(cursor: Cursor, limit: int = 20) -> list[str]:
    """Fail the runs whose strands have cost five workers their life; their ids."""
    cursor.execute("select * from esb_run_poison(%s)", (limit,))
    return [row[0] for row in cursor.fetchall()]


def _columns(key: StrandKey, n: int, events: Sequence[EventRow]) -> dict[str, Any]:
    types, paths, visits, iterations, data = map(list, zip(*events, strict=True)) if events else ([], [], [], [], [])
    return {
        "job": key.job,
        "attempt": key.attempt,
        "n": n,
        "types": types,
        "paths": paths,
        "visits": visits,
        "iterations": iterations,
        "data": data,
    }
