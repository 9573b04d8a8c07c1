"""Messages that runs publish: accepted like any other, once for each visit of a step however often it is tried."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any, Final

from esb_workers.errors import Invalid, Unavailable
from esb_workers.orchestration.failures import FORBIDDEN, VALIDATION_ERROR, Failure, StepFailed
from esb_workers.orchestration.world import OutgoingMessage
from esb_workers.registry import catalogue
from esb_workers.registry.catalogue import Catalogue
from esb_workers.registry.clients import GrantBook
from esb_workers.store import jobs, lanes, messages
from esb_workers.store.engine import Database, StaleRevision
from esb_workers.store.ids import new_id
from esb_workers.store.jobs import Key
from esb_workers.store.json import dumps
from esb_workers.store.messages import Accepted

ROUTING: Final = 1
#: The routing lane, and the scope of message ids, of runs that the operator started.
OPERATOR: Final = "operator"
#: Longest id a message may have.
MAX_ID: Final = 200
#: How often a message is accepted anew because the catalogue changed meanwhile.
ATTEMPTS: Final = 5


class Publisher:
    """Accepts messages. One a process; safe for threads."""

    def __init__(self, database: Database, ring: Callable[[], None]) -> None:
        self._database = database
        self._grants = GrantBook(database)
        self._catalogue = Catalogue(database)
        self._ring = ring
        self._lanes: dict[str, int] = {}  # lane ids never change

    def publish(self, message: OutgoingMessage) -> str:
        """Accept it, or find that it was accepted before; its id. Raises StepFailed, Unavailable."""
        owner = message.client_id or OPERATOR
        self._check_grant(message)
        lane = self._lanes.get(owner)
        if lane is None:
            with self._database.cursor() as cursor:
                lane = self._lanes[owner] = lanes.lane_id(cursor, ROUTING, owner)
        row = _row(message, lane, f"{owner}:message")
        accepted = self._accept(row, message)
        if accepted is not None and accepted.outcome == "conflict":
            raise StepFailed(Failure(VALIDATION_ERROR, "another message was published under this step's key"))
        if message.ordering_key is not None:
            with self._database.cursor() as cursor:  # after the commit, as promotion must be
                jobs.promote(cursor, [Key(lane, message.ordering_key)])
        self._ring()
        return message_id(message.key)

    def _accept(self, row: dict[str, Any], message: OutgoingMessage) -> Accepted | None:
        """Accept the row, anew if the catalogue changed meanwhile; None for one that was accepted before.

        Raises StepFailed for a payload that its type's schema turns down: what is out already is no failure.
        """
        for _ in range(ATTEMPTS):
            try:
                judged = self._catalogue.judge(message.message_type, message.payload)
            except Invalid as error:
                with self._database.cursor() as cursor:
                    if messages.is_known(cursor, row["scope"], row["ext"]):
                        return None
                raise StepFailed(Failure(VALIDATION_ERROR, error.detail)) from None
            found: dict[str, Any] = {"known": {catalogue.TOPIC: judged.revision}}
            if judged.warning is not None:
                found["warning"] = judged.warning
            try:
                with self._database.cursor() as cursor:
                    return messages.accept(cursor, [row | found])[0]
            except StaleRevision:
                self._catalogue.refresh()
        raise Unavailable("the catalogue changes faster than it can be read")

    def _check_grant(self, message: OutgoingMessage) -> None:
        if message.client_id is None:
            return
        client = self._grants.get(message.client_id, message.revision)
        if client is None or not client.may_send(message.message_type):
            told = f"this client may not send messages of type {message.message_type}"
            raise StepFailed(Failure(FORBIDDEN, told))


def message_id(key: str) -> str:
    """The key itself, or its digest where it is too long for an id."""
    return key if len(key) <= MAX_ID else hashlib.sha256(key.encode()).hexdigest()


def _row(message: OutgoingMessage, lane: int, scope: str) -> dict[str, Any]:
    headers, payload = dumps(dict(message.headers)), dumps(message.payload)
    said = "\x1f".join((message.source, message.message_type, headers, payload, message.ordering_key or ""))
    row = {
        "i": 0,
        "id": new_id(),
        "lane": lane,
        "client": message.client_id,
        "source": message.source,
        "type": message.message_type,
        "corr": message.correlation_id,
        "headers": headers,
        "payload": payload,
        "okey": message.ordering_key,
        "trace": message.traceparent,
        "ext": message_id(message.key),
        "scope": scope,
        "hash": hashlib.sha256(said.encode()).hexdigest(),
    }
    return {name: value for name, value in row.items() if value is not None}
