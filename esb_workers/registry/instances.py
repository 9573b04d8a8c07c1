"""What is known of the instances of all services: a snapshot, renewed when the registrations' revision has moved."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Literal, cast
from urllib.parse import quote

from esb_workers.errors import SettingsError
from esb_workers.registry.circuit import Circuit, CircuitState
from esb_workers.registry.retries import RetryPolicy, parse_retry_policy
from esb_workers.registry.secrets import Vault
from esb_workers.store import instances as stored
from esb_workers.store import revision
from esb_workers.store.engine import Database
from esb_workers.store.instances import InstanceRow
from esb_workers.transport import signing
from esb_workers.transport.brokers.address import with_password
from esb_workers.transport.transports import scheme_of

log = logging.getLogger(__name__)

DEFAULT_TIMEOUT = 10_000
"""Milliseconds an attempt may take where nobody says anything."""


@dataclass(frozen=True, slots=True, eq=False)  # the same one or another: it is looked up by, for every delivery
class Instance:
    """One instance, ready to be called. Times in milliseconds unless a name says otherwise."""

    id: str
    name: str
    version: str
    endpoint: str = field(repr=False)  # with its password, if it has one
    scheme: str
    weight: int
    status: str
    health: str
    circuit: Circuit
    epoch: int
    path: str | None
    method: str
    timeout: int | None
    headers: tuple[tuple[str, str], ...]
    format: Literal["binary", "structured", "payload"]
    retry_policy: RetryPolicy | None
    key: bytes | None
    old_key: bytes | None
    old_key_until: float  # seconds since the epoch
    limited: bool = False  # it declares how many calls it bears at once, or in a second

    def keys(self, now: float) -> tuple[bytes, ...]:
        """The keys that sign now: the newest, and the one before while the rotation's overlap lasts."""
        if now >= self.old_key_until:
            return () if self.key is None else (self.key,)
        return tuple(key for key in (self.key, self.old_key) if key is not None)

    def url(self, path: str | None) -> str:
        """`endpoint`, one slash, and `path`, joined as text; the endpoint's own path stays.

        With a broker, `path` takes the place of the queue or the routing key.
        """
        if not path:
            return self.endpoint
        if "?" in self.endpoint:  # of a broker: an endpoint over HTTP has no query
            return f"{self.endpoint}&path={quote(path.lstrip('/'), safe='')}"
        return f"{self.endpoint.rstrip('/')}/{path.lstrip('/')}"


class Directory:
    """The instances by name. One a process; safe for threads: readers see one snapshot or the next."""

    def __init__(self, vault: Vault) -> None:
        self._vault = vault
        self._opened = lru_cache(maxsize=10_000)(self._open)
        self._by_name: Mapping[str, tuple[Instance, ...]] = {}
        self._revision = -1
        self._services = -1
        self._offset = 0.0
        self._lock = threading.Lock()

    def refresh(self, database: Database, at_least: int) -> None:
        """Look again if the registrations have moved to `at_least` since the last look. Raises Unavailable."""
        if self._revision >= at_least:
            return
        with self._lock, database.cursor() as cursor:
            if self._revision >= at_least:
                return
            topics = revision.by_topic(cursor)  # before the rows: what changes in between is seen twice, not missed
            if topics["services"] != self._services:
                self._offset = stored.database_clock(cursor) - time.time()
                self._by_name = self._grouped(stored.load(cursor))
                self._services = topics["services"]
            self._revision = sum(topics.values())

    def named(self, name: str) -> Sequence[Instance]:
        """All instances registered under a name."""
        return self._by_name.get(name, ())

    def now(self) -> float:
        """The database's clock as far as known, seconds since the epoch: what ends of pauses are compared with."""
        return time.time() + self._offset

    def _grouped(self, rows: Sequence[InstanceRow]) -> dict[str, tuple[Instance, ...]]:
        found: dict[str, list[Instance]] = {}
        for row in rows:
            found.setdefault(row.name, []).append(self._instance(row))
        return {name: tuple(instances) for name, instances in found.items()}

    def _open(self, sealed: str) -> bytes | None:
        try:
            return signing.parse_secret(self._vault.open(sealed))
        except (SettingsError, ValueError) as error:
            # One secret that cannot be read must not stop the deliveries of all others; its own go out unsigned,
            # which receivers that verify refuse.
            log.error("a signing secret cannot be read: %s", error)  # noqa: TRY400
            return None

    def _endpoint(self, row: InstanceRow) -> str:
        if row.password is None:
            return row.endpoint
        try:
            return with_password(row.endpoint, self._vault.open(row.password))
        except SettingsError as error:
            log.error("a broker's password cannot be read: %s", error)  # noqa: TRY400
            return row.endpoint  # the broker refuses the login, and the attempts say so

    def _instance(self, row: InstanceRow) -> Instance:
        given: Mapping[str, Any] = {name: value for name, value in row.delivery.items() if value is not None}
        policy = given.get("retryPolicy")
        return Instance(
            id=row.id,
            name=row.name,
            version=row.version,
            endpoint=self._endpoint(row),
            scheme=scheme_of(row.endpoint),
            weight=row.weight,
            status=row.status,
            health=row.health,
            circuit=Circuit(cast(CircuitState, row.circuit), row.circuit_opens, row.circuit_until),
            epoch=row.circuit_epoch,
            path=given.get("path"),
            method=given.get("method", "POST"),
            timeout=given.get("timeout"),
            headers=tuple(given.get("headers", {}).items()),
            format=given.get("format", "binary"),
            retry_policy=parse_retry_policy(policy) if policy else None,
            key=self._opened(row.secret) if row.secret else None,
            old_key=self._opened(row.old_secret) if row.old_secret else None,
            old_key_until=row.old_secret_until.timestamp() if row.old_secret_until else 0.0,
            limited="maxConcurrency" in given or "ratePerSecond" in given,
        )
