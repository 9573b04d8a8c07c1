"""Dead letters, and their replays: which ones, and how far each replay has come."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple

from esb_workers.store.engine import Cursor
from esb_workers.store.ids import as_id, new_id
from esb_workers.store.jobs import Key


class DeadLetter(NamedTuple):
    """A delivery that ended as dead and waits for a decision."""

    delivery_id: str
    message_id: str
    external_id: str | None
    message_type: str
    source: str
    correlation_id: str
    client_id: str | None
    lane: str
    cursor: dict[str, Any] | None
    route_id: str | None
    route: str | None
    error_class: str | None
    attempts: int | None
    last: dict[str, Any] | None
    redacted: bool
    at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadLetterFilter:
    """Which dead letters; None means any, lists mean one of."""

    ids: Sequence[str] | None = None
    message_ids: Sequence[str] | None = None
    destinations: Sequence[str] | None = None
    routes: Sequence[str] | None = None  # ids or names
    classes: Sequence[str] | None = None
    clients: Sequence[str] | None = None
    since: datetime | None = None
    until: datetime | None = None

    def is_empty(self) -> bool:
        """Whether it would take every dead letter."""
        return all(getattr(self, name) is None for name in self.__dataclass_fields__)


class ReplayRow(NamedTuple):
    """A replay and how far it has come. `open`: sent, and not ended yet."""

    id: str
    filter: dict[str, Any]
    rate: float | None
    status: str
    matched: int
    sent: int
    delivered: int
    failed: int
    open: int
    created_at: datetime
    finished_at: datetime | None


_FROM = """from dead_letter x join message m on m.id = x.message_id join lane l on l.id = x.lane_id
    left join delivery d on d.id = x.delivery_id left join route r on r.id = x.route_id"""


def page(cursor: Cursor, limit: int, after: tuple[int, str] | None, wanted: DeadLetterFilter) -> list[DeadLetter]:
    """Dead letters, newest first, one more than `limit` if there are more. `after`: (microseconds, delivery id)."""
    clauses, values = _where(wanted)
    if after is not None:
        clauses.append(
            "(x.at, x.delivery_id) < (timestamptz 'epoch' + %(after_us)s * interval '1 microsecond', %(after_id)s::uuid)"
        )
        values |= {"after_us": after[0], "after_id": after[1]}
    cursor.execute(
        "select x.delivery_id, x.message_id, m.external_id, m.type, m.source, m.correlation_id, x.client_id, l.name, d.cursor,"
        f" x.route_id, r.name, x.class, d.attempts, d.last, m.redacted_at is not null, x.at {_FROM} {_and(clauses)}"
        f" order by x.at desc, x.delivery_id desc limit {limit + 1:d}",
        values,
    )
    return [DeadLetter(*row) for row in cursor.fetchall()]


def letter(cursor: Cursor, delivery_id: str) -> DeadLetter | None:
    """One dead letter; None if there is none such, or it is one no more."""
    found = page(cursor, 1, None, DeadLetterFilter(ids=[delivery_id]))
    return found[0] if found else None


def count(cursor: Cursor, wanted: DeadLetterFilter) -> int:
    """How many dead letters a replay of these would take: redacted ones have nothing left to send."""
    clauses, values = _where(wanted)
    cursor.execute(f"select count(*) {_FROM} {_and([*clauses, 'm.redacted_at is null'])}", values)
    return int(cursor.fetchone()[0])  # type: ignore[index]


def start(cursor: Cursor, wanted: DeadLetterFilter, shown: str, rate: float | None) -> tuple[str, int]:
    """A new replay, inside the caller's transaction: its id, and how many it took. `shown`: the filter as JSON text."""
    replay_id = new_id()
    clauses, values = _where(wanted)
    cursor.execute("insert into replay (id, filter, rate, matched) values (%s, %s, %s, 0)", (replay_id, shown, rate))
    cursor.execute(
        f"insert into replay_item (replay_id, delivery_id) select %(replay)s, x.delivery_id {_FROM}"
        f" {_and([*clauses, 'm.redacted_at is null'])}",
        values | {"replay": replay_id},
    )
    matched = cursor.rowcount
    cursor.execute("update replay set matched = %s where id = %s", (matched, replay_id))
    return replay_id, matched


_REPLAY = """
    select p.id, p.filter, p.rate, p.status, p.matched, c.sent, c.delivered, c.sent - c.delivered - c.open, c.open,
           p.created_at, p.finished_at
      from {chosen} p, lateral (
        select count(*) filter (where i.sent_at is not null) sent,
               count(*) filter (where i.sent_at is not null and d.status = 'delivered') delivered,
               count(*) filter (where i.sent_at is not null and j.id is not null) open
          from replay_item i left join delivery d on d.id = i.delivery_id left join job j on j.id = i.delivery_id
         where i.replay_id = p.id) c order by p.id desc"""


def get(cursor: Cursor, replay_id: str) -> ReplayRow | None:
    """A replay as it stands."""
    cursor.execute(_REPLAY.format(chosen="(select * from replay where id = %s)"), (replay_id,))
    row = cursor.fetchone()
    return ReplayRow(*row) if row else None


def listed(cursor: Cursor, limit: int, after: str | None) -> list[ReplayRow]:
    """Replays, newest first, one more than `limit` if there are more."""
    chosen = "(select * from replay where %(after)s::uuid is null or id < %(after)s order by id desc limit %(most)s)"
    cursor.execute(_REPLAY.format(chosen=chosen), {"after": after, "most": limit + 1})
    return [ReplayRow(*row) for row in cursor.fetchall()]


def cancel(cursor: Cursor, replay_id: str) -> bool:
    """Send no more of a replay; False if it was not running."""
    cursor.execute(
        "update replay set status = 'cancelled', finished_at = now() where id = %s and status = 'running'", (replay_id,)
    )
    return cursor.rowcount > 0


def running(cursor: Cursor) -> list[str]:
    """Replays that are not through, oldest first."""
    cursor.execute("select id from replay where status = 'running' order by id")
    return [row[0] for row in cursor.fetchall()]


class Step(NamedTuple):
    """What one step of a replay did. `first`: by lane, the first delivery that was taken up."""

    handled: int
    sent: int
    keys: list[Key]
    first: dict[int, str]


def step(cursor: Cursor, replay_id: str, limit: int, ahead_seconds: float) -> Step:
    """Send the next items; see esb_replay_step. After the commit, let probes through and promote the keys."""
    cursor.execute(
        "select delivery_id, lane_id, okey from esb_replay_step(%s, %s, make_interval(secs => %s))",
        (replay_id, limit, ahead_seconds),
    )
    rows = cursor.fetchall()
    sent = [row for row in rows if row[1] is not None]
    keys = dict.fromkeys(Key(lane, okey) for _, lane, okey in sent if okey is not None)
    return Step(len(rows), len(sent), list(keys), {lane: delivery for delivery, lane, _ in reversed(sent)})


def _and(clauses: Sequence[str]) -> str:
    return "where " + " and ".join(clauses) if clauses else ""


def _where(wanted: DeadLetterFilter) -> tuple[list[str], dict[str, Any]]:
    values = {
        "ids": _uuids(wanted.ids),
        "message_ids": wanted.message_ids,
        "destinations": wanted.destinations,
        "routes": wanted.routes,
        "classes": wanted.classes,
        "clients": _uuids(wanted.clients),
        "since": wanted.since,
        "until": wanted.until,
    }
    clauses = {
        "ids": "x.delivery_id = any(%(ids)s::uuid[])",
        "message_ids": "(x.message_id::text = any(%(message_ids)s) or m.external_id = any(%(message_ids)s))",
        "destinations": "(l.name = any(%(destinations)s) or d.cursor->>'dest' = any(%(destinations)s))",
        "routes": "(x.route_id::text = any(%(routes)s) or lower(r.name) = any(%(routes)s))",
        "classes": "x.class = any(%(classes)s)",
        "clients": "x.client_id = any(%(clients)s::uuid[])",
        "since": "x.at >= %(since)s",
        "until": "x.at < %(until)s",
    }
    given = {name: value for name, value in values.items() if value is not None}
    if "routes" in given:
        given["routes"] = [text.lower() for text in wanted.routes or ()]
    return [clauses[name] for name in given], given


def _uuids(texts: Sequence[str] | None) -> list[str] | None:
    # What is no id names nothing; it is not an error.
    return None if texts is None else [id_ for text in texts if (id_ := as_id(text))]
