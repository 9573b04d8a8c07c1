"""Control of executions: what people do to runs, and what a run does about it (72_control.sql)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final, NamedTuple

from esb_workers.store.engine import Cursor
from esb_workers.store.executions import EventRow, StrandKey

#: What `act` does.
ACTS: Final = frozenset({"cancel", "pause", "resume", "retry", "signal"})


class Held(NamedTuple):
    """A run that this transaction has locked."""

    status: str  # as it is stored
    workflow_id: str
    input: str
    error: str | None


def act(cursor: Cursor, action: str, execution_id: str, *args: Any) -> str | None:
    """`cancel`, `pause`, `resume`, `retry` or `signal`: None (no such run), 'ok', or what forbids it."""
    if action not in ACTS:
        raise ValueError(action)
    marks = "".join(", %s" for _ in args)
    cursor.execute(f"select esb_run_{action}(%s{marks})", (execution_id, *args))
    row = cursor.fetchone()
    return row[0] if row else None


def hold(cursor: Cursor, execution_id: str) -> Held | None:
    """Lock a run for this transaction: nothing of it ends, forks or joins meanwhile. None: no such run."""
    cursor.execute("select esb_hold_run(%s)", (execution_id,))
    cursor.execute("select status, workflow_id, input, error from execution where id = %s", (execution_id,))
    row = cursor.fetchone()
    return Held(*row) if row else None


def reopen(cursor: Cursor, execution_id: str) -> str:
    """Open a held run that has ended: 'ok', 'busy' or 'in_flight'."""
    cursor.execute("select esb_reopen(%s)", (execution_id,))
    return str(cursor.fetchone()[0])  # type: ignore[index]


def strands(cursor: Cursor, execution_id: str) -> list[tuple[str, str]]:
    """(id, state) of a held run's strands, locked."""
    cursor.execute("select id, state from job where execution_id = %s order by id for update", (execution_id,))
    return list(cursor.fetchall())


def append(cursor: Cursor, execution_id: str, strand: str, n: int, events: Sequence[EventRow]) -> None:
    """Journal on behalf of a strand that is locked and that nobody has claimed."""
    types, paths, visits, iterations, data = map(list, zip(*events, strict=True))
    cursor.execute(
        "select esb_journal(%s, %s, %s, %s::text[], %s::text[], %s::int[], %s::int[], %s::text[])",
        (execution_id, strand, n, types, paths, visits, iterations, data),
    )


def note(cursor: Cursor, execution_id: str, kind: str, data: str) -> None:
    """An entry in a run's history that tells what a person did."""
    cursor.execute("select esb_note(%s, %s, %s)", (execution_id, kind, data))


def keep_state(cursor: Cursor, execution_id: str, strand: str, n: int, state: str) -> None:
    """Write a strand's snapshot as of its event `n`."""
    cursor.execute(
        "insert into snapshot (job_id, execution_id, n, state) values (%s, %s, %s, %s)"
        " on conflict (job_id) do update set n = excluded.n, state = excluded.state",
        (strand, execution_id, n, state),
    )


def skip_ahead(cursor: Cursor, execution_id: str, step: str) -> None:
    """Have a step passed by when the run comes to it."""
    cursor.execute(
        "update execution set skips = array_append(array_remove(skips, %s), %s), updated_at = now() where id = %s",
        (step, step, execution_id),
    )


def wake(cursor: Cursor, strand: str) -> None:
    """Have a strand look again: what it waited for is no more."""
    cursor.execute(
        "update job set inbox = inbox + 1, run_at = case when control is null then now() else run_at end,"
        " state = case when control is null then 'r' else state end::\"char\", cursor = cursor - 'signal' where id = %s",
        (strand,),
    )


def abandon(cursor: Cursor, strand: str) -> None:
    """The runs that a strand waits for are not waited for any more: upkeep cancels them.

    One that is locked is ending, or being told something, and ends by itself in any case.
    """
    cursor.execute(
        "update execution set parent_job = '00000000-0000-0000-0000-000000000000' where id = any(array("
        " select id from execution where parent_job = %s and status in ('open', 'paused') order by id for update skip locked))",
        (strand,),
    )


def touch(cursor: Cursor, execution_id: str) -> None:
    """A run was changed now."""
    cursor.execute("update execution set updated_at = now() where id = %s", (execution_id,))


def visits(cursor: Cursor, execution_id: str) -> int:
    """How often the most visited step of a run was visited, in all its strands."""
    cursor.execute(
        "select coalesce(max(x.c), 0) from (select count(*) c from event where execution_id = %s and visit = n"
        " and type like 'step.%%' group by path) x",
        (execution_id,),
    )
    return int(cursor.fetchone()[0])  # type: ignore[index]


def all_events(cursor: Cursor, execution_id: str, strand: str) -> list[list[Any]]:
    """A strand's whole journal."""
    cursor.execute(
        "select n, type, path, visit, iteration, data from event where execution_id = %s and job_id = %s order by n",
        (execution_id, strand),
    )
    return [list(row) for row in cursor.fetchall()]


def settle(cursor: Cursor, key: StrandKey) -> int:
    """Stop a run's other strands: how many, and how many runs waited for, are left; -1: no longer open. Raises Superseded."""
    cursor.execute("select esb_settle(%s, %s)", key)
    return int(cursor.fetchone()[0])  # type: ignore[index]


def waited_for(cursor: Cursor, execution_id: str) -> Iterable[str]:
    """The open runs that a run's steps wait for and that are not being undone."""
    cursor.execute(
        "select id from execution where parent_id = %s and parent_job is not null and status in ('open', 'paused')"
        " and not undo order by id",
        (execution_id,),
    )
    return [row[0] for row in cursor.fetchall()]


def orphans(cursor: Cursor, limit: int = 100) -> list[str]:
    """Runs that were waited for, and no longer are."""
    cursor.execute("select * from esb_orphans(%s)", (limit,))
    return [row[0] for row in cursor.fetchall()]
