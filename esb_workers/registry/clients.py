"""Clients: what they may do, by which key they are known, and the changes people make to them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, NamedTuple

from esb_workers.errors import NotFound
from esb_workers.expressions.topics import TopicTrie
from esb_workers.registry import keys
from esb_workers.registry.quotas import Limit, limits_of
from esb_workers.registry.registrations import found, unique
from esb_workers.registry.revisions import Revisions
from esb_workers.registry.selection import WORKFLOW
from esb_workers.store import audit
from esb_workers.store import clients as store
from esb_workers.store.clients import ClientRow, KeyRow
from esb_workers.store.engine import Database, Transaction
from esb_workers.store.revision import Known

ANY: Final = "*"


@dataclass(frozen=True, slots=True)
class Client:
    """What a request or a delivery has to know of a client."""

    id: str
    name: str
    status: str
    allowed_services: frozenset[str]
    allowed_message_types: TopicTrie[None]
    any_message_type: bool
    limits: tuple[Limit, ...]
    max_payload_bytes: int | None
    expires_at: float | None  #: seconds since 1970

    def may_use(self, service: str) -> bool:
        """Whether the grant covers a service, by its name alone. It covers workflows: their steps are bound by it."""
        return service.startswith(WORKFLOW) or service in self.allowed_services or ANY in self.allowed_services

    def may_send(self, message_type: str) -> bool:
        """Whether any allowed pattern matches."""
        return self.any_message_type or bool(self.allowed_message_types.match(message_type))


def client_of(row: ClientRow) -> Client:
    """The client in a stored row."""
    patterns: TopicTrie[None] = TopicTrie()
    for pattern in row.allowed_message_types:
        patterns.add(pattern, None)
    return Client(
        id=row.id,
        name=row.name,
        status=row.status,
        allowed_services=frozenset(row.allowed_services),
        allowed_message_types=patterns,
        any_message_type="#" in row.allowed_message_types,
        limits=limits_of(row.rate_limits),
        max_payload_bytes=row.max_payload_bytes,
        expires_at=row.expires_at.timestamp() if row.expires_at else None,
    )


class Holder(NamedTuple):
    """Whom a key belongs to: a client, or a service, for one thing (`scope`)."""

    client: Client | None
    service_id: str | None
    expires_at: float | None  #: seconds since 1970
    scope: str = ""

    def expired(self, now: float) -> bool:
        """Whether the key, or its client, has run out."""
        ends = (self.expires_at, self.client.expires_at if self.client else None)
        return any(end is not None and end <= now for end in ends)


class KeyRing:
    """Whom a key belongs to, remembered while no registration of its kind has changed.

    What is remembered is good for the revisions it goes with. A caller whose own transaction checks them may use it as
    it is (`cached`).
    """

    def __init__(self, database: Database, revisions: Revisions) -> None:
        self._database = database
        self._revisions = revisions
        # By topic. Replaced as a whole, never changed in place but for additions: threads need no lock.
        self._remembered: dict[str, tuple[int, dict[bytes, Holder]]] = {"clients": (-1, {}), "services": (-1, {})}

    def find(self, key: str, *, cached: bool = False) -> tuple[Holder | None, Known]:
        """The holder of `key` (None: nobody), and what that was known by. Expiry is the caller's to judge."""
        topics = self._revisions.last() if cached else self._revisions.refresh()
        digest = keys.digest(key)
        for topic in self._remembered:
            holder = self._holders(topic, topics).get(digest)
            if holder is not None:
                return holder, {topic: topics[topic]}
        holder = self._load(key, digest)
        if holder is None:
            return None, {topic: topics[topic] for topic in self._remembered}
        topic = "clients" if holder.client is not None else "services"
        self._holders(topic, topics)[digest] = holder
        return holder, {topic: topics[topic]}

    def _holders(self, topic: str, topics: Known) -> dict[bytes, Holder]:
        number, holders = self._remembered[topic]
        if number != topics[topic]:
            holders = {}
            self._remembered[topic] = (topics[topic], holders)
        return holders

    def _load(self, key: str, digest: bytes) -> Holder | None:
        public_id = keys.public_id(key)
        if public_id is None:
            return None
        with self._database.read() as connection:
            found = store.find_key(connection, public_id)
            if found and found[0].hash == digest:
                return Holder(client_of(found[1]), None, _seconds(found[0].expires_at))
            service_key = store.find_service_key(connection, public_id)
            if service_key and service_key.hash == digest:
                return Holder(None, service_key.owner_id, _seconds(service_key.expires_at), service_key.scope)
        return None


def _seconds(moment: datetime | None) -> float | None:
    return moment.timestamp() if moment else None


class NewClientKey(NamedTuple):
    """A client, and a key of it that is shown this once."""

    client: ClientRow
    key: KeyRow
    text: str


class Clients:
    """The client registry. Every change is one transaction, with its audit row and a new revision."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def register(self, values: dict[str, Any], *, by: str) -> NewClientKey:
        """A new client with its first key. Raises Conflict if the name is taken."""
        key = keys.new_key("client")
        with _unique_name(), self._database.transaction() as connection:
            row = store.add(connection, values)
            stored = store.add_key(connection, row.id, key.id, key.digest, None)
            _changed(connection, by, "create", row, key=key.id)
        return NewClientKey(row, stored, key.text)

    def get(self, client_id: str) -> ClientRow:
        """Raises NotFound."""
        with self._database.read() as connection:
            return found(store.get(connection, client_id))

    def page(self, limit: int, after: str | None, **filters: Sequence[str] | None) -> list[ClientRow]:
        """Clients, newest first, one more than `limit` if there are more. Filters: `name`, `status`."""
        with self._database.read() as connection:
            return store.page(connection, limit, after, **filters)

    def change(self, client_id: str, edit: Callable[[ClientRow], dict[str, Any]], *, by: str) -> ClientRow:
        """Write what `edit` makes of the present row, which it may refuse. Raises NotFound, Conflict."""
        with _unique_name(), self._database.transaction() as connection:
            before = found(store.get(connection, client_id, lock=True))
            values = edit(before)
            row = store.change(connection, client_id, values)
            _changed(connection, by, "change", row, fields=[k for k, v in values.items() if getattr(before, k) != v])
        return row

    def revoke(self, client_id: str, check: Callable[[ClientRow], None], *, by: str) -> None:
        """Delete a client with all its keys, at once; its messages stay. Raises NotFound."""
        with self._database.transaction() as connection:
            row = found(store.get(connection, client_id, lock=True))
            check(row)
            store.remove(connection, client_id)
            _changed(connection, by, "delete", row)

    def rotate(self, client_id: str, expires_previous_in: int | None, *, by: str) -> NewClientKey:
        """A further key; the present ones end in `expires_previous_in` milliseconds (None: they stay)."""
        key = keys.new_key("client")
        with self._database.transaction() as connection:
            row = found(store.get(connection, client_id, lock=True))
            stored = store.add_key(connection, client_id, key.id, key.digest, None)
            if expires_previous_in is not None:
                store.expire_keys(connection, client_id, key.id, expires_previous_in)
            _changed(connection, by, "add_key", row, key=key.id, expiresPreviousIn=expires_previous_in)
        return NewClientKey(row, stored, key.text)

    def keys(self, client_id: str) -> list[KeyRow]:
        """The client's keys, newest first. Raises NotFound."""
        with self._database.read() as connection:
            found(store.get(connection, client_id))
            return store.keys(connection, client_id)

    def revoke_key(self, client_id: str, key_id: str, *, by: str) -> None:
        """Raises NotFound."""
        with self._database.transaction() as connection:
            row = found(store.get(connection, client_id, lock=True))
            if not store.remove_key(connection, client_id, key_id):
                raise NotFound
            _changed(connection, by, "remove_key", row, key=key_id)

    def usage(self, client_id: str) -> list[store.UsageRow]:
        """The last 24 hours, oldest first. Raises NotFound."""
        with self._database.read() as connection:
            found(store.get(connection, client_id))
            return store.usage(connection, client_id)


class GrantBook:
    """Clients by id, for those who act for them later: routing, delivery, orchestration."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._known: tuple[int, dict[str, Client | None]] = (-1, {})

    def get(self, client_id: str, rev: int) -> Client | None:
        """The client as of revision `rev` (which a claim answers) or later; None if it was revoked."""
        if self._known[0] != rev:
            self._known = (rev, {})
        known = self._known[1]
        if client_id not in known:
            with self._database.read() as connection:
                row = store.get(connection, client_id)
            known[client_id] = client_of(row) if row else None
        return known[client_id]


def _unique_name() -> AbstractContextManager[None]:
    return unique("client_name", "A client of this name exists.")


def _changed(connection: Transaction, by: str, action: str, row: ClientRow, **detail: Any) -> None:
    audit.changed(connection, "clients", audit.Change(by, action, "client", row.id, row.name, detail or None))
