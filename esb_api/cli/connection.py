"""How a command finds the API and the key: options, environment, or the bus that runs on this data directory."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, TypeVar

import click

from esb_api.client import Client
from esb_workers.node.addresses import Addresses
from esb_workers.node.keys import ADMIN_KEY_FILE
from esb_workers.settings import Settings

F = TypeVar("F", bound=Callable[..., Any])


@dataclass(frozen=True)
class Connection:
    """A client, and whether its caller is a program."""

    client: Client
    as_json: bool


def connected(command: F) -> F:
    """Give a command `--url`, `--key` and `--json`, and pass it a Connection first."""

    def run(*args: Any, url: str | None, key: str | None, as_json: bool, **kwargs: Any) -> Any:
        settings = Settings.load(url=url, api_key=key)
        with Client(_url(settings), _key(settings)) as client:
            return command(Connection(client, as_json), *args, **kwargs)

    run.__name__, run.__doc__ = command.__name__, command.__doc__
    run.__click_params__ = getattr(command, "__click_params__", [])  # type: ignore[attr-defined]
    for option in _OPTIONS:
        run = option(run)
    return run  # type: ignore[return-value]


_OPTIONS: Final = (
    click.option("--json", "as_json", is_flag=True, help="Print the API's answer as JSON."),
    click.option("--key", metavar="KEY", help="The API key.  [env: ESB_API_KEY; default: the local operator key]"),
    click.option("--url", metavar="URL", help="Where the API is.  [env: ESB_URL; default: the bus on this machine]"),
)


def _url(settings: Settings) -> str:
    if settings.url:
        return settings.url
    running = Addresses.read(settings.data_dir)
    return running.api if running else f"http://127.0.0.1:{settings.api_port}"


def _key(settings: Settings) -> str | None:
    secret = settings.api_key or settings.admin_key
    if secret is not None:
        return secret.get_secret_value()
    try:
        return (settings.data_dir / ADMIN_KEY_FILE).read_text(encoding="ascii").strip()
    except OSError:
        return None
