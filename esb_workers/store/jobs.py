"""Unfinished work: claim, complete, promote, sweep. Each function is one call of the SQL function it is named after."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, Final, NamedTuple

import orjson
import psycopg2
import psycopg2.errors
import psycopg2.extensions

from esb_workers.store import messages
from esb_workers.store.engine import Cursor, Database
from esb_workers.store.json import dumps
from esb_workers.store.messages import StoredMessage
from esb_workers.store.prepared import Prepared

#: Cursors of deliveries hold nothing but names and small numbers: to read them any parser will do, so the fastest does.
_CURSORS = psycopg2.extensions.new_type(
    (3802,), "CURSOR", lambda value, _: None if value is None else orjson.loads(value)
)
#: The newest row format this code understands (`job.v`).
ROW_FORMAT = 1
_CLAIM: Final = Prepared(
    "esb_claim",
    "select * from esb_claim(%s::smallint, %s, %s::smallint, %s, %s, %s::int[], %s::int[], %s, %s, p_whole => %s)",
)
_ROUTED: Final = Prepared(
    "esb_routed", "select * from esb_routed(%s, %s::json, %s::json, %s::int, %s::uuid, %s::int, %s::jsonb)"
)
_DELIVERED: Final = Prepared("esb_delivered", "select * from esb_delivered(%s, %s::json)")
_DONE: Final = Prepared("esb_done", "select * from esb_done(%s, %s::json)")


class Claim(NamedTuple):
    """A row this worker holds. `attempt` is the fence that its completion must present."""

    id: str
    lane_id: int
    attempt: int
    tries: int
    message_id: str | None
    route_id: str | None
    okey: str | None
    cursor: dict[str, Any] | None
    execution_id: str | None
    control: str | None
    inbox: int
    created_at: datetime
    rev: int
    losses: int = 0  # workers that died, or lost it, while they held it
    message: StoredMessage | None = None  # where the claim was asked for it, and it is not long


class Key(NamedTuple):
    """An ordering key in a lane."""

    lane_id: int
    okey: str


class Done(NamedTuple):
    """What a completion still found to be ours, the keys whose next row can go, and whether timers were set."""

    ids: list[str]
    keys: Sequence[Key] = ()
    timers: bool = False


def claim(
    cursor: Cursor,
    pool: int,
    worker: int,
    limit: int,
    room: int,
    *,
    rooms: Mapping[int, int] | None = None,
    after_lane: int = 0,
    lease_seconds: float = 60,
    whole: bool = False,
) -> list[Claim]:
    """Claim up to `limit` ready rows, at most `room` a lane (or `rooms[lane]`). Raises WorkerDeclaredDead.

    `whole`: with their messages, save the long ones: these are loaded apart, each once however many rows share it.
    """
    rooms = rooms or {}
    if whole:
        psycopg2.extensions.register_type(_CURSORS, cursor)
    lease = f"{lease_seconds} s"
    values = pool, worker, ROW_FORMAT, limit, room, list(rooms), list(rooms.values()), after_lane, lease, whole
    _CLAIM.execute(cursor, values)
    return [Claim._make((*row[:14], _message(row))) for row in cursor.fetchall()]


def _message(row: tuple[Any, ...]) -> StoredMessage | None:
    return StoredMessage(row[4], *row[15:]) if row[14] else None


def messages_of(database: Database, claims: Sequence[Claim]) -> dict[str, StoredMessage]:
    """The messages of claims by id: those that came with them, and the others in one round trip."""
    found = {claim.message.id: claim.message for claim in claims if claim.message is not None}
    missing = {claim.message_id for claim in claims if claim.message_id and claim.message_id not in found}
    if missing:
        with database.cursor() as cursor:
            found |= messages.load(cursor, list(missing))
    return found


def routed(cursor: Cursor, worker: int, results: Sequence[Mapping[str, Any]]) -> Done:
    """Record what routing made of messages: {id, attempt, to: its deliveries, end: {status, reason} or none}; see esb_routed."""
    own = [{"id": result["id"], "attempt": result["attempt"], **result.get("end", {})} for result in results]
    made = [(result["id"], row) for result in results for row in result["to"]]
    alike = _alike([row for _, row in made])
    rows = [{"m": message, **{name: row[name] for name in row if name not in alike}} for message, row in made]
    _ROUTED.execute(
        cursor,
        (
            worker,
            dumps(own),
            dumps(rows),
            alike.get("lane"),
            alike.get("route"),
            alike.get("prio", messages.DEFAULT_PRIORITY),
            dumps(alike["cursor"]) if "cursor" in alike else None,
        ),
    )
    return done_of(cursor)


def _alike(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What all deliveries of a statement have in common: it is said once."""
    first = rows[0] if len(rows) > 1 else {}
    wanted = {name: first[name] for name in ("lane", "route", "prio", "cursor") if first.get(name) is not None}
    return {name: value for name, value in wanted.items() if all(row.get(name) == value for row in rows)}


def done(cursor: Cursor, worker: int, results: Sequence[Mapping[str, Any]]) -> Done:
    """Record what became of deliveries; see esb_done for the shape of a result."""
    statement = _DELIVERED if all(result["o"] == "ok" for result in results) else _DONE
    statement.execute(cursor, (worker, dumps(results)))
    return done_of(cursor)._replace(timers=any(r["o"] in ("retry", "hold") for r in results))


def superseded(cursor: Cursor, results: Sequence[Mapping[str, Any]], recorded: Done) -> None:
    """Keep what attempts found whose deliveries were another's by then: those of `results` that are not `recorded`."""
    ours = set(recorded.ids)
    late = [{name: row.get(name) for name in ("id", "attempt", "detail")} for row in results if row["id"] not in ours]
    cursor.execute("select esb_superseded(%s::jsonb)", (dumps(late),))


def done_of(cursor: Cursor) -> Done:
    rows = cursor.fetchall()
    keys = list(dict.fromkeys(Key(lane, okey) for _, lane, okey in rows if okey is not None))
    return Done([id_ for id_, _, _ in rows if id_ is not None], keys)


def promote(cursor: Cursor, keys: Iterable[Key]) -> int:
    """Let the next row of each key go. In a transaction of its own, after the commit that freed or filled the key."""
    wanted = list(keys)
    if not wanted:
        return 0
    for _ in range(5):
        try:
            cursor.execute(
                "select esb_promote(%s::int[], %s::text[])", ([k.lane_id for k in wanted], [k.okey for k in wanted])
            )
        except psycopg2.errors.UniqueViolation:
            continue  # somebody else promoted one of these keys at this moment
        return int(cursor.fetchone()[0])  # type: ignore[index]
    return 0  # hotly contended: whoever wins promotes, and the sweep is below


def due(cursor: Cursor, pool: int, limit: int = 1000) -> int:
    """Make ready what is due; how many."""
    cursor.execute("select esb_due(%s::smallint, %s)", (pool, limit))
    return int(cursor.fetchone()[0])  # type: ignore[index]


def seconds_until_due(cursor: Cursor, pool: int) -> float | None:
    """Seconds until the next timer of this pool; None if there is none."""
    cursor.execute("select extract(epoch from esb_wake(%s::smallint) - now())::float8", (pool,))
    seconds = cursor.fetchone()[0]  # type: ignore[index]
    return None if seconds is None else max(0.0, float(seconds))


def sweep(cursor: Cursor, lease_seconds: float, limit: int = 500) -> list[tuple[str, int]]:
    """Take back the work of workers that are dead: (job, pool) of each.

    After a start of the server its workers have a lease, and the time of a new connection, to beat again.
    """
    cursor.execute("select id, pool from esb_sweep(%s, make_interval(secs => %s))", (limit, lease_seconds + 2))
    return list(cursor.fetchall())


class Wanted(NamedTuple):
    """What upkeep has to do, by kind; `wake`: seconds until the next timer of the pool, if a single one was asked for."""

    lost: bool
    unknown: bool
    due: bool
    ready: bool
    aside: bool
    expired: bool
    queued: bool
    wake: float | None


def wanted(
    cursor: Cursor, pools: Sequence[int] | None = None, worker: int | None = None, seconds: float | None = None
) -> Wanted:
    """What upkeep has to do in these pools (None: in all), and whether `worker` has held something longer than that."""
    cursor.execute(
        "select lost, unknown, due, ready, aside, expired, queued, extract(epoch from wake - now())::float8"
        " from esb_upkeep_wanted(%s::smallint[], %s, make_interval(secs => %s))",
        (None if pools is None else list(pools), worker, seconds),
    )
    return Wanted(*cursor.fetchone())  # type: ignore[misc]


class Held(NamedTuple):
    """A row in flight under a worker's name."""

    id: str
    attempt: int


def held(cursor: Cursor, worker: int, seconds: float) -> list[Held]:
    """What a worker has claimed longer than `seconds` ago and not recorded."""
    cursor.execute(
        "select id, attempt from job where state = 'f' and worker_id = %s and started_at < now() - make_interval(secs => %s)",
        (worker, seconds),
    )
    return [Held(*row) for row in cursor.fetchall()]


def give_back(cursor: Cursor, worker: int, lost: Mapping[Held, bool], seconds: float = 0) -> list[tuple[str, int]]:
    """Let others have what this worker will not record, after `seconds`; True for what it began. (job, pool) of each."""
    cursor.execute(
        "select id, pool from esb_give_back(%s, %s::uuid[], %s::int[], %s::boolean[], make_interval(secs => %s))",
        (worker, [h.id for h in lost], [h.attempt for h in lost], list(lost.values()), seconds),
    )
    return list(cursor.fetchall())


def poison(cursor: Cursor, limit: int = 100) -> Sequence[Key]:
    """End work that has cost five workers their life; the keys to promote."""
    cursor.execute("select esb_poison_groups(%s)", (limit,))
    cursor.execute("select * from esb_poison(%s)", (limit,))
    return done_of(cursor).keys


def expire(cursor: Cursor, limit: int = 1000) -> Sequence[Key]:
    """End what has expired; the keys to promote."""
    cursor.execute("select * from esb_expire(%s)", (limit,))
    return done_of(cursor).keys


def offer_dead_letters(cursor: Cursor, limit: int = 500) -> int:
    """Send what ended dead to the services that its routes name for it; how many."""
    cursor.execute("select esb_offer_dead_letters(%s)", (limit,))
    return int(cursor.fetchone()[0])  # type: ignore[index]


def promote_all(cursor: Cursor) -> int:
    """The net below `promote`: every key whose rows are all queued."""
    try:
        cursor.execute("select esb_promote_all()")
    except psycopg2.errors.UniqueViolation:
        return 0
    return int(cursor.fetchone()[0])  # type: ignore[index]


def unblock(cursor: Cursor, wanted: Wanted) -> int:
    """End what is set aside or has expired, and let keys go that were passed by; how many rows are ready by it."""
    freed = 0
    if wanted.aside:
        freed += promote(cursor, poison(cursor))
    if wanted.expired:
        freed += promote(cursor, expire(cursor))
    if wanted.queued:
        freed += promote_all(cursor)
    return freed


class QueueFigures(NamedTuple):
    """What waits in a pool."""

    pool: int
    due: int
    oldest_due_age_ms: int
    in_flight: int
    workers: int


def figures(cursor: Cursor) -> list[QueueFigures]:
    """Depth, age of the oldest due row, work in flight and live workers of each pool."""
    cursor.execute("""
        select p, coalesce(d.due, 0), coalesce(d.age, 0), coalesce(f.n, 0), coalesce(w.n, 0)
          from generate_series(1, 5) p
          left join (select j.pool, count(*) due,
                            -- Fresh rows carry their priority in run_at; their age counts from creation.
                            greatest(0, extract(epoch from now() - min(greatest(j.run_at, j.created_at))) * 1000)::int8 age
                       from job j join lane l on l.id = j.lane_id
                      where j.state in ('r', 's') and j.run_at <= now() and l.gate_until <= now() group by j.pool) d on d.pool = p
          left join (select pool, count(*) n from job where state = 'f' group by pool) f on f.pool = p
          left join (select pool, count(*) n from worker where dead_at is null and beat_until > now() group by pool) w on w.pool = p
         order by p""")
    return [QueueFigures(*map(int, row)) for row in cursor.fetchall()]
