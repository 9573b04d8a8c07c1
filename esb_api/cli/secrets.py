"""`esb secrets`: the keys that encrypt secrets at rest."""

from __future__ import annotations

from pathlib import Path

import click
from cryptography.fernet import Fernet

from esb_workers.errors import SettingsError
from esb_workers.node.addresses import Addresses
from esb_workers.node.keys import add_secret_key, secret_keys_of
from esb_workers.registry.secrets import Vault
from esb_workers.settings import Settings
from esb_workers.store import secrets as stored
from esb_workers.store.engine import Database

_data_dir = click.option(
    "--data-dir", type=click.Path(file_okay=False, path_type=Path), help="Of `esb up`.  [default: .esb]"
)


@click.group("secrets")
def secrets() -> None:
    """The keys that encrypt signing secrets at rest (ESB_SECRET_KEYS)."""


@secrets.command("new-key")
@_data_dir
def new_key(data_dir: Path | None) -> None:
    """Put a new key in front of those in the data directory; with ESB_SECRET_KEYS set, print one to put there.

    Restart the bus after it, then run `esb secrets rotate`.
    """
    settings = Settings.load(data_dir=data_dir)
    key = Fernet.generate_key().decode()
    if settings.secret_keys:
        click.echo(key)
        click.echo("Put it in front of the others in ESB_SECRET_KEYS, and restart workers, then the API.", err=True)
        return
    if not settings.data_dir.is_dir():
        raise SettingsError(
            f"{settings.data_dir} is not the data directory of `esb up`, and ESB_SECRET_KEYS is not set"
        )
    file = add_secret_key(settings, key)
    click.echo(f"A new key stands in {file}. Restart the bus, then run `esb secrets rotate`.")


@secrets.command("rotate")
@_data_dir
def rotate(data_dir: Path | None) -> None:
    """Encrypt every stored secret anew under the newest key; afterwards the older keys can be dropped."""
    settings = Settings.load(data_dir=data_dir)
    if settings.database_url is None:
        running = Addresses.read(settings.data_dir)
        if running is None:
            raise SettingsError("ESB_DATABASE_URL is not set, and no bus of `esb up` runs on this data directory")
        url = running.database
    else:
        url = settings.database_url.get_secret_value()
    if not settings.secret_keys and settings.database_url is not None:
        raise SettingsError("ESB_SECRET_KEYS is not set: the keys of this database are not known")
    vault = Vault(secret_keys_of(settings))
    database = Database(url, pool_size=1, name="esb secrets")
    try:
        count = stored.reseal(database, vault.reseal, "operator")
    finally:
        database.dispose()
    click.echo(f"{count} secrets are encrypted with the newest key")
