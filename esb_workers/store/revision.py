"""The revision of the registrations: a number that moves with each change of clients, services, routes, workflows."""

from __future__ import annotations

from collections.abc import Mapping

from esb_workers.store.engine import Cursor

#: By what something was decided: topics, and the number of each. It stands while none of them has moved.
Known = Mapping[str, int]


def current(cursor: Cursor) -> int:
    """The sum over all topics. A cache filled at one revision is good for as long as it stays."""
    cursor.execute("select sum(n)::bigint from revision")
    return int(cursor.fetchone()[0])  # type: ignore[index]


def of_topic(cursor: Cursor, topic: str) -> int:
    """The number of one topic."""
    cursor.execute("select n from revision where topic = %s", (topic,))
    return int(cursor.fetchone()[0])  # type: ignore[index]


def by_topic(cursor: Cursor) -> dict[str, int]:
    """The number of each topic, to refresh only what moved."""
    cursor.execute("select topic, n from revision")
    return dict(cursor.fetchall())
