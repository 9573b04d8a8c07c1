"""Counters of quota windows where Redis does not hold them, and what the history says was used."""

from __future__ import annotations

from collections.abc import Sequence

from esb_workers.store.engine import Cursor

_COUNTED = """
    with start as (select to_timestamp(%(start)s) as opens)
    select (select count(*) from message, start where client_id = %(client)s::uuid and id >= esb_uuid_at(opens)
               and created_at >= opens and replay_of is null)
         + (select count(*) from execution, start where client_id = %(client)s::uuid and id >= esb_uuid_at(opens)
               and created_at >= opens and parent_job is null)"""


def now(cursor: Cursor) -> int:
    """The database's clock, whole seconds since 1970."""
    cursor.execute("select floor(extract(epoch from clock_timestamp()))::bigint")
    return int(cursor.fetchone()[0])  # type: ignore[index]


def lock(cursor: Cursor, client_id: str, seconds: int, at: int) -> int:
    """Places used in the window that holds `at`; its row stays locked until the transaction ends.

    A window without a row yet starts with what the history counts. Lock the windows of a client in ascending
    order of `seconds`: two requests then never wait for each other in a circle.
    """
    key = (client_id, seconds, at - at % seconds)
    for _ in range(2):
        cursor.execute(
            "select used from quota where client_id = %s and seconds = %s and starts_at = to_timestamp(%s) for update",
            key,
        )
        row = cursor.fetchone()
        if row is not None:
            return int(row[0])
        used = counted(cursor, client_id, at, [seconds])[seconds]
        cursor.execute(
            "insert into quota (client_id, seconds, starts_at, used) values (%s, %s, to_timestamp(%s), %s)"
            " on conflict do nothing",
            (*key, used),
        )
    raise AssertionError("a quota row vanished")


def add(cursor: Cursor, client_id: str, at: int, seconds: Sequence[int], places: int) -> None:
    """Raise (or, negative, lower) the windows that held `at`."""
    for length in sorted(seconds):
        cursor.execute(
            "update quota set used = greatest(0, used + %s)"
            " where client_id = %s and seconds = %s and starts_at = to_timestamp(%s)",
            (places, client_id, length, at - at % length),
        )


def used(cursor: Cursor, client_id: str, at: int, seconds: Sequence[int]) -> dict[int, int]:
    """Places used in the windows that hold `at`, by length."""
    counts = {}
    for length in seconds:
        cursor.execute(
            "select used from quota where client_id = %s and seconds = %s and starts_at = to_timestamp(%s)",
            (client_id, length, at - at % length),
        )
        row = cursor.fetchone()
        counts[length] = int(row[0]) if row else counted(cursor, client_id, at, [length])[length]
    return counts


def counted(cursor: Cursor, client_id: str, at: int, seconds: Sequence[int]) -> dict[int, int]:
    """What the history says was accepted of a client in the windows that hold `at`, by length in seconds."""
    counts = {}
    for length in seconds:
        cursor.execute(_COUNTED, {"client": client_id, "start": at - at % length})
        counts[length] = int(cursor.fetchone()[0])  # type: ignore[index]
    return counts


def purge(cursor: Cursor, limit: int = 5000) -> int:
    """Delete a chunk of windows that are long over; how many."""
    cursor.execute(
        "delete from quota where ctid = any(array("
        "select ctid from quota where starts_at < now() - interval '2 days' limit %s))",
        (limit,),
    )
    return cursor.rowcount
