"""Answers kept for repeats of a request. Uniqueness is the database's: a concurrent twin waits for the first."""

from __future__ import annotations

from typing import NamedTuple

import psycopg2.errors

from esb_workers.errors import Conflict, Invalid
from esb_workers.store.engine import Cursor


class Answer(NamedTuple):
    """What was answered to a request."""

    status: int
    body: str


def begin(cursor: Cursor, scope: str, key: str, digest: bytes, keep_seconds: float = 86_400) -> Answer | None:
    """Take the key inside the caller's transaction: None if it is ours now, or the answer to replay.

    Waits for a twin whose transaction is open. Raises Conflict if it does not end in time, Invalid if the key was
    used for another request.
    """
    try:
        cursor.execute(
            "insert into idempotency as d (scope, key, hash, expires_at)"
            " values (%s, %s, %s, now() + make_interval(secs => %s))"
            " on conflict (scope, key) do update set hash = excluded.hash, status = null, answer = null,"
            " resource_id = null, expires_at = excluded.expires_at where d.expires_at < now() returning 1",
            (scope, key, digest, keep_seconds),
        )
    except psycopg2.errors.LockNotAvailable as error:
        raise Conflict(
            "a request with this Idempotency-Key is still in progress", code="idempotency_in_progress"
        ) from error
    if cursor.fetchone():
        return None
    cursor.execute("select hash, status, answer from idempotency where scope = %s and key = %s", (scope, key))
    row = cursor.fetchone()
    if row is None or row[1] is None:
        raise Conflict("a request with this Idempotency-Key is still in progress", code="idempotency_in_progress")
    if bytes(row[0]) != digest:
        raise Invalid(detail="this Idempotency-Key was used for another request", code="idempotency_key_reused")
    return Answer(int(row[1]), row[2])


def finish(cursor: Cursor, scope: str, key: str, answer: Answer) -> None:
    """Keep the answer, in the same transaction as what it answers for."""
    cursor.execute(
        "update idempotency set status = %s, answer = %s where scope = %s and key = %s",
        (answer.status, answer.body, scope, key),
    )


def purge(cursor: Cursor, limit: int = 5000) -> int:
    """Delete a chunk of what has expired; how many."""
    cursor.execute(
        "delete from idempotency where ctid = any(array(select ctid from idempotency where expires_at < now() limit %s))",
        (limit,),
    )
    return cursor.rowcount
