"""Worker processes: their registration, and the heartbeat that is the lease of everything they hold."""

from __future__ import annotations

from esb_workers.errors import WorkerDeclaredDead
from esb_workers.store.engine import Cursor


def register(cursor: Cursor, pool: int, host: str, pid: int, version: str, lease_seconds: float) -> int:
    """A new life of a process; its id goes into everything it claims."""
    cursor.execute(
        "insert into worker (pool, host, pid, version, beat_until)"
        " values (%s, %s, %s, %s, now() + make_interval(secs => %s)) returning id",
        (pool, host, pid, version, lease_seconds),
    )
    return int(cursor.fetchone()[0])  # type: ignore[index]


def beat(cursor: Cursor, worker: int, lease_seconds: float) -> None:
    """Extend the lease. Raises WorkerDeclaredDead if it was taken away meanwhile."""
    cursor.execute(
        "update worker set beat_until = now() + make_interval(secs => %s) where id = %s and dead_at is null",
        (lease_seconds, worker),
    )
    if cursor.rowcount == 0:
        raise WorkerDeclaredDead


def retire(cursor: Cursor, worker: int) -> None:
    """The process stops in good order: what it still holds may be taken at once."""
    cursor.execute("update worker set dead_at = now() where id = %s and dead_at is null", (worker,))


def alive(cursor: Cursor) -> dict[int, int]:
    """Live workers per pool id."""
    cursor.execute("select pool, count(*) from worker where dead_at is null and beat_until > now() group by pool")
    return dict(cursor.fetchall())


def alive_on(cursor: Cursor, host: str) -> bool:
    """Whether a worker or scheduler of this host keeps up its heartbeat."""
    cursor.execute("select 1 from worker where host = %s and dead_at is null and beat_until > now() limit 1", (host,))
    return cursor.fetchone() is not None


def forget(cursor: Cursor, days: float) -> None:
    """Drop workers that died long ago and hold nothing."""
    cursor.execute(
        "delete from worker w where dead_at < now() - make_interval(secs => %s)"
        " and not exists (select 1 from job j where j.state = 'f' and j.worker_id = w.id)",
        (days * 86400,),
    )
