"""Deliveries: what became of attempts, and what hangs on it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from esb_workers.store import instances, jobs
from esb_workers.store.engine import Cursor, Database
from esb_workers.store.ids import new_id
from esb_workers.store.jobs import Done, Key
from esb_workers.store.json import dumps


class Reply(NamedTuple):
    """A message made of an answer, for the service that the answered message (`message_id`) names."""

    service: str
    source: str
    message_type: str
    payload: str
    message_id: str


class Onward(NamedTuple):
    """The next stop of a routing slip, and what it is sent: JSON texts."""

    service: str
    cursor: Mapping[str, Any]
    payload: str
    headers: str


class Form(NamedTuple):
    """What is to go out, made after routing; `lane`: where the delivery goes from here, None: it stays."""

    payload: str
    headers: str
    lane: int | None


def record(
    database: Database,
    worker: int,
    rows: Sequence[Mapping[str, Any]],
    *,
    disables: Mapping[str, str],
    replies: Mapping[str, Reply],
    onwards: Mapping[str, Onward],
    forms: Mapping[str, Form],
) -> Done:
    """Record attempts. For those still ours, in the same transaction: disable instances, send replies, go on."""
    if not (disables or replies or onwards or forms):
        with database.cursor() as cursor:
            done = jobs.done(cursor, worker, rows)
            if len(done.ids) < len(rows):
                jobs.superseded(cursor, rows, done)
            return done
    with database.raw_transaction() as cursor:
        # Services before jobs, as in deregistering, and in order: nobody waits in a circle.
        instances.lock(cursor, sorted(set(disables.values())))
        cancelled = _cancelled(cursor, onwards) if onwards else ()
        done = jobs.done(cursor, worker, rows)
        ours = set(done.ids)
        if len(ours) < len(rows):
            jobs.superseded(cursor, rows, done)
        for service_id in sorted({service for delivery, service in disables.items() if delivery in ours}):
            instances.disable(cursor, service_id)
        for delivery in sorted(ours & replies.keys()):
            reply(cursor, replies[delivery])
        for delivery in sorted(ours & forms.keys()):
            keep_form(cursor, delivery, forms[delivery])
        keys = [onward(cursor, delivery, onwards[delivery]) for delivery in sorted(ours & onwards.keys() - cancelled)]
    if not keys:
        return done._replace(timers=done.timers or bool(forms))
    return done._replace(keys=[*done.keys, *(key for key in keys if key.okey is not None)], timers=True)


def reply(cursor: Cursor, answer: Reply) -> bool:
    """Send a reply to its service; False if the message has been replied to already."""
    cursor.execute(
        "select esb_reply(%s, %s, %s, %s, %s, %s, %s)",
        (
            answer.message_id,
            new_id(),
            new_id(),
            answer.service,
            answer.source,
            answer.message_type,
            answer.payload,
        ),
    )
    return bool(cursor.fetchone()[0])  # type: ignore[index]


def onward(cursor: Cursor, delivery: str, to: Onward) -> Key:
    """Make the delivery to the next stop, in the transaction that records `delivery` as done; the key to promote."""
    cursor.execute(
        "select lane_id, okey from esb_onward(%s, %s, %s, %s::jsonb, %s, %s)",
        (delivery, new_id(), to.service, dumps(to.cursor), to.payload, to.headers),
    )
    return Key(*cursor.fetchone())  # type: ignore[misc]


def _cancelled(cursor: Cursor, deliveries: Iterable[str]) -> set[str]:
    """Which of these must go no further. Locked, in order of id as everywhere: a cancel comes before us or after."""
    cursor.execute(
        "select id, control from job where id = any(%s::uuid[]) order by id for update", (sorted(deliveries),)
    )
    return {id_ for id_, control in cursor.fetchall() if control is not None}


def keep_form(cursor: Cursor, delivery: str, form: Form) -> None:
    """Keep what was made for a delivery, and let it go to where it is for, with a fresh budget."""
    cursor.execute(
        "insert into form (delivery_id, payload, headers) values (%s, %s, %s)"
        " on conflict (delivery_id) do update set payload = excluded.payload, headers = excluded.headers",
        (delivery, form.payload, form.headers),
    )
    cursor.execute(
        "update job set lane_id = coalesce(%s, lane_id), tries = 0, cursor = cursor - 'then' where id = %s and pool = 2",
        (form.lane, delivery),
    )
