"""The Flower dashboard over the pools: behind a password, and read-only."""

from __future__ import annotations

import os
import signal
from types import FrameType

from esb_workers.errors import SettingsError
from esb_workers.settings import Settings


def run(settings: Settings) -> None:
    """Serve Flower until the process is told to end."""
    # Imported here: Flower brings a web server along that no other process needs.
    import flower.command  # type: ignore[import-untyped]  # declares its options, too
    from tornado.options import options

    from esb_workers.app import make_celery

    # Set here and not in the command line, which every user of the machine can read.
    options.basic_auth = [flower_login(settings)]
    signal.signal(signal.SIGINT, _leave)
    flower.command.sigterm_handler = _leave
    arguments = {
        "address": settings.flower_host,
        "port": settings.flower_port,
        "read_only": True,
        "max_tasks": 5000,
        "purge_offline_workers": 300,
    }
    app = make_celery(settings)
    # Flower asks the workers for a dozen things at once, each on two connections. With the few that a ring needs, all
    # of them would wait for one another for ever, and the dashboard would show no worker.
    app.conf.broker_pool_limit = 64
    app.start(["flower", *(f"--{name}={value}" for name, value in arguments.items())])


def _leave(number: int, frame: FrameType | None) -> None:
    """End at once. Flower holds nothing worth saving, and its own end waits for threads that wait for workers."""
    os._exit(0)


def flower_login(settings: Settings) -> str:
    """`user:password`: the one that is set, else `admin` and the operator's key. Raises SettingsError for neither."""
    if settings.flower_auth is not None:
        return settings.flower_auth.get_secret_value()
    if settings.admin_key is None:
        raise SettingsError("Flower needs ESB_FLOWER_AUTH or ESB_ADMIN_KEY: it never runs without a password")
    return f"admin:{settings.admin_key.get_secret_value()}"
