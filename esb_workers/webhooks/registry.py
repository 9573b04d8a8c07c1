"""The changes people make to inbound webhooks. Each is one transaction, with its audit row and a new revision."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from datetime import datetime
from typing import Any, Final, NamedTuple

from esb_workers.errors import FieldError, IllegalTransition, Invalid
from esb_workers.registry.registrations import found, unique
from esb_workers.registry.secrets import Vault
from esb_workers.store import audit
from esb_workers.store import ingress as store
from esb_workers.store.engine import Database, Transaction
from esb_workers.store.ingress import IngressRow, RefusalRow
from esb_workers.webhooks.definition import compile_ingress
from esb_workers.webhooks.verification import verification_of

#: Secrets that one ingress may have.
MAX_SECRETS: Final = 10


class Definition(NamedTuple):
    """What a caller wrote. `secrets` and `challenge_token` in clear; None: those there are stay."""

    name: str
    enabled: bool
    body: dict[str, Any]
    secrets: Sequence[str] | None
    challenge_token: str | None


class Made(NamedTuple):
    """An ingress, and its secret where the bus has just made it: shown this once."""

    row: IngressRow
    secret: str | None


class Ingresses:
    """The inbound webhooks of a database."""

    def __init__(self, database: Database, vault: Vault) -> None:
        self._database = database
        self._vault = vault

    def register(self, wanted: Definition, *, by: str) -> Made:
        """A new ingress. Raises Invalid naming every fault, Conflict if the name is taken."""
        values, made = self._columns(wanted, None)
        with _unique_name(), self._database.transaction() as connection:
            row = store.add(connection, values)
            _changed(connection, by, "create", row)
        return Made(row, made)

    def get(self, ingress_id: str) -> IngressRow:
        """Raises NotFound."""
        with self._database.read() as connection:
            return found(store.get(connection, ingress_id))

    def page(
        self, limit: int, after: str | None, *, name: Sequence[str] | None = None, enabled: bool | None = None
    ) -> list[IngressRow]:
        """Definitions, newest first, one more than `limit` if there are more."""
        with self._database.read() as connection:
            return store.page(connection, limit, after, name=name, enabled=enabled)

    def change(self, ingress_id: str, edit: Callable[[IngressRow], Definition], *, by: str) -> Made:
        """Write what `edit` makes of the present row. Raises NotFound, Invalid, Conflict."""
        with _unique_name(), self._database.transaction() as connection:
            before = found(store.get(connection, ingress_id, lock=True))
            values, made = self._columns(edit(before), before)
            row = store.change(connection, ingress_id, values)
            _changed(connection, by, "change", row, fields=_differing(before, row))
        return Made(row, made)

    def delete(self, ingress_id: str, check: Callable[[IngressRow], None], *, by: str) -> None:
        """Take an ingress away, at once. What it accepted goes its way. Raises NotFound."""
        with self._database.transaction() as connection:
            row = found(store.get(connection, ingress_id, lock=True))
            check(row)
            store.remove(connection, ingress_id)
            _changed(connection, by, "delete", row)

    def rotate(self, ingress_id: str, secret: str | None, overlap: int, *, by: str) -> Made:
        """A new secret (None: made here); those before count for `overlap` milliseconds more.

        Raises NotFound, Invalid, IllegalTransition for an ingress without verification.
        """
        with self._database.transaction() as connection:
            before = found(store.get(connection, ingress_id, lock=True))
            if before.body["verification"]["type"] == "none":
                raise IllegalTransition("This ingress verifies nothing: it has no secret.")
            fresh, made = self._secrets(before.body["verification"], None if secret is None else [secret], "secret")
            until = time.time() + overlap / 1000
            kept = [
                {**one, "until": until if one["until"] is None else min(until, one["until"])}
                for one in before.secrets
                if overlap and (one["until"] is None or one["until"] > time.time())
            ]
            row = store.change(connection, ingress_id, {"secrets": [*fresh, *kept][:MAX_SECRETS]}, version=False)
            _changed(connection, by, "rotate_secret", row, overlap=overlap)
        return Made(row, made)

    def refusals(
        self,
        ingress_id: str,
        limit: int,
        after: str | None,
        *,
        code: Sequence[str] | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
    ) -> list[RefusalRow]:
        """Refused requests, newest first, one more than `limit` if there are more. Raises NotFound."""
        with self._database.read() as connection:
            found(store.get(connection, ingress_id))
            return store.refusals(connection, ingress_id, limit, after, code=code, since=since, until=until)

    def _columns(self, wanted: Definition, before: IngressRow | None) -> tuple[dict[str, Any], str | None]:
        compile_ingress(wanted.body, name=wanted.name)
        verification = wanted.body["verification"]
        same_kind = before is not None and before.body["verification"]["type"] == verification["type"]
        if before is not None and same_kind and wanted.secrets is None:
            self._check_kept(verification, before)
            secrets, made = before.secrets, None
        else:
            secrets, made = self._secrets(verification, wanted.secrets, "verification.secrets")
        token = self._token(wanted, before)
        values = {"name": wanted.name, "enabled": wanted.enabled, "body": wanted.body, "secrets": secrets}
        return values | {"challenge_token": token}, made

    def _secrets(
        self, verification: dict[str, Any], given: Sequence[str] | None, path: str
    ) -> tuple[list[dict[str, Any]], str | None]:
        """The secrets to store, and the one that was made here, if any."""
        how = verification_of(verification)
        if given is not None:
            faults = []
            for index, secret in enumerate(given):
                try:
                    how.check_secret(secret)
                except ValueError as error:
                    faults.append(FieldError(path if path == "secret" else f"{path}[{index}]", str(error)))
            if faults:
                raise Invalid(faults)
            return [self._sealed(secret) for secret in given], None
        made = how.new_secret()
        if made is None and verification["type"] != "none":
            raise Invalid([FieldError(path, "is required: the sender makes the secret")])
        return ([] if made is None else [self._sealed(made)]), made

    def _check_kept(self, verification: dict[str, Any], before: IngressRow) -> None:
        """What stays must fit what is new: a key that was text need not be hexadecimal."""
        how = verification_of(verification)
        for secret in before.secrets:
            try:
                how.check_secret(self._vault.open(secret["sealed"]))
            except ValueError as error:
                raise Invalid(
                    [FieldError("verification.secrets", f"those that are kept do not fit: {error}")]
                ) from None

    def _token(self, wanted: Definition, before: IngressRow | None) -> str | None:
        if not (wanted.body.get("challenge") or {}).get("tokenQuery"):
            return None
        if wanted.challenge_token is not None:
            return self._vault.seal(wanted.challenge_token)
        if before is None or before.challenge_token is None:
            raise Invalid([FieldError("challenge.token", "is required with tokenQuery")])
        return before.challenge_token

    def _sealed(self, secret: str) -> dict[str, Any]:
        return {"sealed": self._vault.seal(secret), "until": None}


def _differing(before: IngressRow, after: IngressRow) -> list[str]:
    """Names of what changed; of secrets only that they did."""
    keys = {*before.body, *after.body}
    changed = [key for key in keys if before.body.get(key) != after.body.get(key)]
    changed += [name for name in ("name", "enabled", "secrets") if getattr(before, name) != getattr(after, name)]
    return sorted(changed)


def _unique_name() -> AbstractContextManager[None]:
    return unique("ingress_name", "An ingress of this name exists.")


def _changed(connection: Transaction, by: str, action: str, row: IngressRow, **detail: Any) -> None:
    audit.changed(connection, "ingress", audit.Change(by, action, "ingress", row.id, row.name, detail or None))
