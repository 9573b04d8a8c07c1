"""What happened in a drill, from three witnesses: the senders, the receivers, the database.

A sender knows one of three things about a message (Jepsen's outcomes): `ok`, it was accepted; `failed`, it surely was
not; `unknown`, nobody can tell, because the connection broke, or because the bus answered that its database was away,
which may be after the commit.
"""

from __future__ import annotations

import json
import os
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg2

from tests.support.receiver import Hit, Reply

OK, FAILED, UNKNOWN = "ok", "failed", "unknown"


@dataclass(frozen=True)
class Try:
    """One request for a message: seconds on the driver's monotonic clock; status None when no answer came."""

    started: float
    ended: float
    status: int | None
    retry_after: bool = False


@dataclass(frozen=True)
class Sent:
    """A message as its sender saw it. Tries are repeats under the same messageId."""

    n: int
    key: str | None
    outcome: str
    tries: tuple[Try, ...]

    @property
    def started(self) -> float:
        return self.tries[0].started

    @property
    def ended(self) -> float:
        return self.tries[-1].ended


@dataclass(frozen=True)
class Arrival:
    """A request at a receiver. `delivery` is its Idempotency-Key."""

    n: int
    delivery: str
    at: float
    status: int
    receiver: str = ""


@dataclass(frozen=True)
class Delivery:
    """A delivery that has ended, from the database. `attempts` is the fence it ended with."""

    id: str
    n: int
    status: str
    attempts: int
    last_number: int | None
    error_class: str | None = None
    resent: bool = False  # its last attempt says that its request went out twice


@dataclass(frozen=True)
class Attempt:
    """An earlier attempt of a delivery, from the database."""

    delivery: str
    number: int
    outcome: str
    resent: bool = False


@dataclass
class Ledger:
    """The database at the end."""

    messages: dict[str, int] = field(default_factory=dict)  # id -> n
    deliveries: list[Delivery] = field(default_factory=list)
    attempts: list[Attempt] = field(default_factory=list)
    ends: dict[str, str] = field(default_factory=dict)  # message id -> status of one that ended without a delivery
    open: dict[str, str] = field(default_factory=dict)  # job id -> message id, of whatever is not finished
    dead_letters: set[str] = field(default_factory=set)  # delivery ids


@dataclass
class History:
    """All of it."""

    sent: list[Sent]
    arrivals: list[Arrival]
    ledger: Ledger


class Journal:
    """The receivers' log: a file that is only ever appended to, a line for each request, written before its answer."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self.count = 0  # about: for waiting, not for judging

    def write(self, receiver: str, n: int, delivery: str, status: int) -> None:
        line = json.dumps([receiver, n, delivery, time.monotonic(), status]) + "\n"
        os.write(self._fd, line.encode())
        self.count += 1

    def note(self, receiver: str) -> Any:
        """What a Receiver of that name is to call with each request and its answer."""

        def write(hit: Hit, reply: Reply) -> None:
            if "idempotency-key" in hit.headers and (n := int(hit.json["n"])) >= 0:  # less: not of the drill's senders
                self.write(receiver, n, hit.headers["idempotency-key"], reply.status)

        return write

    def read(self) -> list[Arrival]:
        with self._path.open() as file:
            rows = [json.loads(line) for line in file]
        return [Arrival(n, delivery, at, status, receiver) for receiver, n, delivery, at, status in rows]

    def close(self) -> None:
        os.close(self._fd)


def number_of(message_id: str) -> int:
    """The number in a drill's messageId, `drill-42`."""
    return int(message_id.rpartition("-")[2])


def read_ledger(database_url: str) -> Ledger:
    """The database's side. Only messages of the drill (those with its messageId) and what belongs to them."""
    connection = psycopg2.connect(database_url)
    try:
        with connection, connection.cursor() as cursor:
            return _read(cursor)
    finally:
        connection.close()


def _read(cursor: Any) -> Ledger:
    def rows(sql: str) -> list[tuple[Any, ...]]:
        cursor.execute(sql)
        return list(cursor.fetchall())

    messages = {
        i: number_of(ext)
        for i, ext in rows("select id::text, external_id from message where external_id like 'drill-%'")
    }
    deliveries = rows(
        "select id::text, message_id::text, status, attempts, (last->>'number')::int, class, coalesce((last->>'resent')::bool, false) from delivery"
    )
    attempts = rows(
        "select delivery_id::text, number, outcome, coalesce((detail->>'resent')::bool, false) from attempt order by 1, 2"
    )
    ends = rows("select message_id::text, status from message_end")
    jobs = rows("select id::text, coalesce(message_id, id)::text from job where pool in (1, 2)")
    dead = rows("select delivery_id::text from dead_letter")
    return Ledger(
        messages=messages,
        deliveries=[Delivery(i, messages[m], *rest) for i, m, *rest in deliveries if m in messages],
        attempts=[Attempt(*row) for row in attempts],
        ends={m: status for m, status in ends if m in messages},
        open={i: m for i, m in jobs if m in messages},
        dead_letters={i for (i,) in dead},
    )
