"""Listeners: the changes people make to them. Each is one transaction, with its jobs and its audit row."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any

import orjson

from esb_workers.bus import Bus, NewMessage
from esb_workers.errors import Conflict, NotFound, Unavailable
from esb_workers.listening.definition import Listener, compile_mapping
from esb_workers.listening.incoming import Incoming
from esb_workers.registry.catalogue import Catalogue
from esb_workers.registry.registrations import found, unique
from esb_workers.registry.secrets import Vault
from esb_workers.store import audit
from esb_workers.store import listeners as store
from esb_workers.store.engine import Database, StaleRevision, Transaction
from esb_workers.store.listeners import ListenerRow, ParkedRow, StateRow
from esb_workers.store.messages import Accepted
from esb_workers.transport.brokers.address import parse, same_login, with_password, without_password

Edit = Callable[[ListenerRow], dict[str, Any]]


def opened(row: ListenerRow, vault: Vault) -> Listener:
    """A listener ready for use. Raises SettingsError when its password cannot be read."""
    url = with_password(row.url, vault.open(row.password)) if row.password else row.url
    return Listener(
        id=row.id,
        name=row.name,
        etag=row.etag,
        address=parse(url),
        processes=row.processes,
        prefetch=row.prefetch,
        mapping=compile_mapping(row.mapping),
    )


class Listeners:
    """The listeners of a database."""

    def __init__(self, bus: Bus, vault: Vault, catalogue: Catalogue, max_bytes: int) -> None:
        self._bus = bus
        self._database: Database = bus.database
        self._vault = vault
        self._catalogue = catalogue
        self._max_bytes = max_bytes

    def register(self, values: dict[str, Any], *, by: str) -> ListenerRow:
        """A new listener. Raises Invalid naming each fault, Conflict if the name is taken."""
        compile_mapping(values["mapping"])
        with _unique_name(), self._database.transaction() as connection:
            row = store.add(connection, values | self._login(None, values["url"]))
            store.listen(connection, row.id, row.processes, row.enabled)
            _changed(connection, by, "create", row)
        self._bus.ringer.ring("ingress")
        return row

    def get(self, listener_id: str) -> ListenerRow:
        """Raises NotFound."""
        with self._database.read() as connection:
            return found(store.get(connection, listener_id))

    def page(self, limit: int, after: str | None, **filters: Any) -> list[ListenerRow]:
        """Listeners, newest first, one more than `limit` if there are more."""
        with self._database.read() as connection:
            return store.page(connection, limit, after, **filters)

    def states(self, rows: Sequence[ListenerRow]) -> dict[str, StateRow]:
        """What is known of them, by id."""
        with self._database.read() as connection:
            return store.states(connection, [row.id for row in rows])

    def change(self, listener_id: str, edit: Edit, *, by: str) -> ListenerRow:
        """Write what `edit` makes of the present row. What is accepted after this follows it.

        Raises NotFound, Invalid, Conflict.
        """
        with _unique_name(), self._database.transaction() as connection:
            before = found(store.get(connection, listener_id, lock=True))
            values = edit(before)
            compile_mapping(values["mapping"])
            row = store.change(connection, listener_id, values | self._login(before, values["url"]))
            store.listen(connection, row.id, row.processes, row.enabled)
            fields = [name for name in row._fields if getattr(row, name) != getattr(before, name)]
            _changed(connection, by, "change", row, fields=[f for f in fields if f not in ("etag", "updated_at")])
        self._bus.ringer.ring("ingress")
        return row

    def delete(self, listener_id: str, check: Callable[[ListenerRow], None], *, by: str) -> None:
        """Take a listener away; what is not acknowledged stays in its queue. Raises NotFound."""
        with self._database.transaction() as connection:
            row = found(store.get(connection, listener_id, lock=True))
            check(row)
            store.listen(connection, row.id, 0, enabled=False)
            store.remove(connection, listener_id)
            _changed(connection, by, "delete", row)

    def _login(self, before: ListenerRow | None, url: str) -> dict[str, Any]:
        """The URL without its password, and that sealed; as it is shown, it keeps the one it has."""
        shown, password = without_password(url)
        if password is not None:
            return {"url": shown, "password": self._vault.seal(password)}
        kept = before.password if before is not None and same_login(before.url, shown) else None
        return {"url": shown, "password": kept}

    # --- parked messages -----------------------------------------------------------------------------

    def parked(self, listener_id: str, limit: int, after: str | None) -> list[ParkedRow]:
        """Parked messages, newest first, one more than `limit` if there are more. Raises NotFound."""
        with self._database.read() as connection:
            found(store.get(connection, listener_id))
            return store.parked(connection, listener_id, limit, after)

    def replay(self, listener_id: str, parked_id: str, *, by: str) -> str:
        """Have a parked message accepted by today's mapping: the message's id.

        Raises NotFound; Invalid or Malformed, with today's reason, when it still cannot be: then it stays parked.
        """
        listener = opened(self.get(listener_id), self._vault)
        self._catalogue.refresh()
        try:
            new, accepted = self._accept_parked(listener, parked_id)
        except StaleRevision:
            raise Unavailable("the catalogue of types is just being changed") from None
        self._bus.committed([new], [accepted])
        self._note(by, "replay_parked", listener, parked_id)
        return accepted.id

    def _accept_parked(self, listener: Listener, parked_id: str) -> tuple[NewMessage, Accepted]:
        with self._database.raw_transaction() as cursor:
            row = store.take_parked(cursor, listener.id, parked_id)
            if row is None:
                raise NotFound
            incoming = Incoming(row.body, orjson.loads(row.headers), orjson.loads(row.properties))
            new = listener.message(incoming, self._max_bytes, self._catalogue.judge)
            (outcome,) = self._bus.publish_in(cursor, [new], None)
            if outcome.outcome == "conflict":
                raise Conflict(f"The id {new.message_id} belongs to another message.", code="message_id_conflict")
        return new, outcome

    def discard(self, listener_id: str, parked_id: str, *, by: str) -> None:
        """Take a parked message away for good. Raises NotFound."""
        row = self.get(listener_id)
        with self._database.raw_transaction() as cursor:
            if store.take_parked(cursor, listener_id, parked_id) is None:
                raise NotFound
        self._note(by, "discard_parked", row, parked_id)

    def _note(self, by: str, action: str, row: ListenerRow | Listener, parked_id: str) -> None:
        with self._database.transaction() as connection:
            audit.record(connection, audit.Change(by, action, "listener", row.id, row.name, {"parkedId": parked_id}))


def _unique_name() -> AbstractContextManager[None]:
    return unique("listener_name", "A listener of this name is there already.")


def _changed(connection: Transaction, by: str, action: str, row: ListenerRow, **detail: Any) -> None:
    audit.record(connection, audit.Change(by, action, "listener", row.id, row.name, detail or None))
