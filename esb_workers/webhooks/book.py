"""What a process keeps in memory of the inbound webhooks, good for the revision of `ingress` it was read at."""

from __future__ import annotations

from esb_workers.registry.secrets import Vault
from esb_workers.store import ingress as store
from esb_workers.store.engine import Database
from esb_workers.store.ingress import IngressRow
from esb_workers.webhooks.definition import Ingress, OpenSecret, compile_ingress


class Book:
    """Definitions by name. Safe for threads."""

    def __init__(self, database: Database, vault: Vault) -> None:
        self._database = database
        self._vault = vault
        # Replaced as a whole, never changed in place but for additions: threads need no lock.
        self._known: tuple[int, dict[str, Ingress]] = (-1, {})

    def find(self, name: str, rev: int) -> Ingress | None:
        """The ingress of a name as of revision `rev` of `ingress` or later. Unknown names are not remembered."""
        if self._known[0] != rev:
            self._known = (rev, {})
        known = self._known[1]
        found = known.get(name.lower())
        if found is None:
            with self._database.read() as connection:
                row = store.named(connection, name)
            if row is None:
                return None
            found = known[name.lower()] = self._opened(row)
        return found

    def _opened(self, row: IngressRow) -> Ingress:
        return compile_ingress(
            row.body,
            ingress_id=row.id,
            name=row.name,
            enabled=row.enabled,
            secrets=[OpenSecret(self._vault.open(one["sealed"]), one["until"]) for one in row.secrets],
            challenge_token=self._vault.open(row.challenge_token) if row.challenge_token else None,
        )
