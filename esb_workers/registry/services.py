"""Services: the changes people make to them. Each is one transaction, with everything that follows from it:
the gate of the name's lane, the job of its health checks, the audit row, and a new revision."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

from esb_workers.errors import Conflict, NotFound
from esb_workers.registry import keys
from esb_workers.registry.registrations import found, unique
from esb_workers.registry.secrets import Vault, new_secret
from esb_workers.registry.versions import parse_range, parse_version
from esb_workers.store import audit
from esb_workers.store import services as store
from esb_workers.store.clients import KeyRow
from esb_workers.store.engine import Database, Transaction
from esb_workers.store.services import CheckRow, ServiceRow
from esb_workers.transport.brokers.address import is_broker, same_login, without_password
from esb_workers.transport.transports import PULL

#: What open deliveries of a name die of when its last instance is deregistered.
DELETED = "service_deleted"


class Registered(NamedTuple):
    """A new instance, and its signing secret, which is shown this once."""

    service: ServiceRow
    secret: str


class Rotated(NamedTuple):
    """A new signing secret, and until when the one before signs as well."""

    secret: str
    previous_until: datetime | None


class NewServiceKey(NamedTuple):
    """A key of a service, shown this once."""

    key: KeyRow
    text: str


#: Makes of an instance the columns to write; `delivery` in it may be None, `secret` in clear or absent.
Edit = Callable[[ServiceRow], dict[str, Any]]


class Services:
    """The service registry."""

    def __init__(self, database: Database, vault: Vault) -> None:
        self._database = database
        self._vault = vault

    def register(self, values: dict[str, Any], *, by: str) -> Registered:
        """A new instance. Without `delivery` or `secret` it takes those of its name. Raises Conflict."""
        with _unique_instance(), self._database.transaction() as connection:
            kin = store.named(connection, values["name"])
            if values.get("delivery") is None:
                values = {**values, "delivery": kin[0].delivery if kin else {}}
            secret = values.pop("secret", None) or self._secret_of(kin) or new_secret()
            login = self._login(None, values["endpoint"])
            row = store.add(connection, {**values, **login, "secret": self._vault.seal(secret)})
            self._settle(connection, None, row)
            _refuse_mixture(connection, row.name)
            _changed(connection, by, "create", row)
        return Registered(row, secret)

    def _login(self, before: ServiceRow | None, endpoint: str) -> dict[str, Any]:
        """The endpoint without its password, and that sealed.

        An endpoint that comes as it is shown keeps the password, unless it leads to another server or user.
        """
        if not is_broker(endpoint):
            return {"endpoint": endpoint, "password": None}
        shown, password = without_password(endpoint)
        if password is not None:
            return {"endpoint": shown, "password": self._vault.seal(password)}
        kept = before.password if before is not None and same_login(before.endpoint, shown) else None
        return {"endpoint": shown, "password": kept}

    def _secret_of(self, kin: Sequence[ServiceRow]) -> str | None:
        sealed = next((row.secret for row in kin if row.secret), None)
        return self._vault.open(sealed) if sealed else None

    def get(self, service_id: str) -> ServiceRow:
        """Raises NotFound."""
        with self._database.read() as connection:
            return found(store.get(connection, service_id))

    def page(self, limit: int, after: str | None, **filters: Sequence[str] | None) -> list[ServiceRow]:
        """Instances, newest first, one more than `limit` if there are more. Filters: `name status health tag`."""
        with self._database.read() as connection:
            return store.page(connection, limit, after, filters)

    def discover(self, name: str, version: str | None = None, tags: Sequence[str] | None = None) -> list[ServiceRow]:
        """The active, not unhealthy instances of a name, highest version first. `version`: an npm-style range."""
        wanted = parse_range(version) if version is not None else None
        with self._database.read() as connection:
            rows = store.named(connection, name)
        found = [
            row
            for row in rows
            if row.status == "active"
            and row.health != "unhealthy"
            and (wanted is None or wanted.contains(parse_version(row.version)))
            and (tags is None or not set(tags).isdisjoint(row.tags))
        ]
        return sorted(found, key=lambda row: parse_version(row.version), reverse=True)

    def change(self, service_id: str, edit: Edit, *, by: str) -> ServiceRow:
        """Write what `edit` makes of the present row, which it may refuse. Raises NotFound, Conflict."""
        with _unique_instance(), self._database.transaction() as connection:
            before = found(store.get(connection, service_id, lock=True))
            values = edit(before)
            if "secret" in values:
                values["secret"] = self._vault.seal(values["secret"])
            values |= self._login(before, values["endpoint"])
            row = store.change(connection, service_id, values)
            self._settle(connection, before, row)
            _refuse_mixture(connection, row.name)
            changed = [name for name, value in values.items() if getattr(before, name) != value]
            _changed(connection, by, "change", row, fields=changed)
            return found(store.get(connection, service_id))

    def set_status(self, service_id: str, status: str, check: Callable[[ServiceRow], None], *, by: str) -> ServiceRow:
        """Change an instance's status. Raises NotFound."""
        with self._database.transaction() as connection:
            before = found(store.get(connection, service_id, lock=True))
            check(before)
            if before.status == status:
                return before
            row = store.change(connection, service_id, {"status": status})
            store.gate(connection, row.name)
            _changed(connection, by, "status", row, before=before.status, after=status)
        return row

    def deregister(self, service_id: str, check: Callable[[ServiceRow], None], *, by: str) -> None:
        """Delete an instance; with the last of its name the name's open deliveries end as dead. Raises NotFound."""
        with self._database.transaction() as connection:
            row = found(store.get(connection, service_id, lock=True))
            check(row)
            store.schedule_checks(connection, service_id, row.name, wanted=False)
            store.remove(connection, service_id)
            # The gate first: it takes the name's lock, under which two last instances cannot both see the other.
            store.gate(connection, row.name)
            ended = 0 if store.named(connection, row.name) else store.end_deliveries(connection, row.name, DELETED)
            _changed(connection, by, "delete", row, endedDeliveries=ended)

    def _settle(self, connection: Transaction, before: ServiceRow | None, row: ServiceRow) -> None:
        """What follows from an instance's new content."""
        # The state before the gate, as everywhere: a circuit that changes holds its state while it waits for the gate.
        if before is not None and row.health_check is None:
            store.forget_health(connection, row.id)
        # In order: two renames that cross would otherwise wait for each other's name.
        for name in sorted({row.name} | ({before.name} if before else set())):
            store.gate(connection, name)
        if before is None or before.health_check != row.health_check or before.name != row.name:
            store.schedule_checks(connection, row.id, row.name, wanted=row.health_check is not None)

    # --- secrets and keys --------------------------------------------------------------------------------

    def rotate_secret(self, service_id: str, overlap: int, *, by: str) -> Rotated:
        """A new signing secret; the old one signs as well for `overlap` milliseconds. Raises NotFound."""
        secret = new_secret()
        with self._database.transaction() as connection:
            before = found(store.get(connection, service_id, lock=True))
            until = datetime.now(UTC) + timedelta(milliseconds=overlap) if overlap and before.secret else None
            values = {
                "secret": self._vault.seal(secret),
                "old_secret": before.secret if until else None,
                "old_secret_until": until,
            }
            row = store.change(connection, service_id, values)
            _changed(connection, by, "rotate_secret", row, overlap=overlap)
        return Rotated(secret, until)

    def signing_secrets(self, row: ServiceRow, now: datetime) -> list[str]:
        """The secrets that sign what goes to this instance now, newest first."""
        sealed = [row.secret] if row.secret else []
        if row.old_secret and row.old_secret_until and row.old_secret_until > now:
            sealed.append(row.old_secret)
        return [self._vault.open(one) for one in sealed]

    def add_key(self, service_id: str, scope: str, *, by: str) -> NewServiceKey:
        """A further key, for `heartbeat` or `pull`. Raises NotFound."""
        key = keys.new_key("service")
        with self._database.transaction() as connection:
            row = found(store.get(connection, service_id, lock=True))
            stored = store.add_key(connection, service_id, key.id, key.digest, scope)
            _changed(connection, by, "add_key", row, key=key.id, scope=scope)
        return NewServiceKey(stored, key.text)

    def keys(self, service_id: str) -> Sequence[KeyRow]:
        """The service's keys, newest first. Raises NotFound."""
        with self._database.read() as connection:
            found(store.get(connection, service_id))
            return store.keys(connection, service_id)

    def revoke_key(self, service_id: str, key_id: str, *, by: str) -> None:
        """Raises NotFound."""
        with self._database.transaction() as connection:
            row = found(store.get(connection, service_id, lock=True))
            if not store.remove_key(connection, service_id, key_id):
                raise NotFound
            _changed(connection, by, "remove_key", row, key=key_id)

    def checks(self, service_id: str, limit: int, after: str | None) -> list[CheckRow]:
        """Checks, oldest first, one more than `limit` if there are more. Raises NotFound."""
        with self._database.read() as connection:
            found(store.get(connection, service_id))
            return store.checks(connection, service_id, limit, after)


def _refuse_mixture(connection: Transaction, name: str) -> None:
    """A lane is pulled from, or sent from. To be called under the lock of the name's gate. Raises Conflict."""
    kin = store.named(connection, name)
    if len(kin) > 1 and any(row.endpoint == PULL for row in kin):
        raise Conflict("A service whose endpoint is `pull:` has no other instance.", code="pull_is_alone")


def _unique_instance() -> AbstractContextManager[None]:
    detail = "An instance with this name, version and endpoint is registered."
    return unique("service_instance", detail, code="service_exists")


def _changed(connection: Transaction, by: str, action: str, row: ServiceRow, **detail: Any) -> None:
    audit.changed(connection, "services", audit.Change(by, action, "service", row.id, row.name, detail or None))
