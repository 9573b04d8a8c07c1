"""The Flower dashboard over the pools: behind a password, and read-only."""

from __future__ import annotations

from esb_workers.settings import Settings


def run(settings: Settings) -> None:
    """Serve Flower until the process is told to end."""
    # Imported here: Flower brings a web server along that no other process needs.
    import flower.options  # type: ignore[import-untyped]  # noqa: F401  (declares its options)
    from tornado.options import options

    from esb_workers.app import make_celery

    # Set here and not in the command line, which every user of the machine can read.
    options.basic_auth = [flower_login(settings)]
    arguments = {
        "address": settings.flower_host,
        "port": settings.flower_port,
        "read_only": True,
        "max_tasks": 5000,
        "purge_offline_workers": 300,
    }
    make_celery(settings).start(["flower", *(f"--{name}={value}" for name, value in arguments.items())])


def flower_login(settings: Settings) -> str:
    """`user:password`: the one that is set, else `admin` and the operator's key."""
    if settings.flower_auth is not None:
        return settings.flower_auth.get_secret_value()
    if settings.admin_key is None:
        raise ValueError("Flower needs ESB_FLOWER_AUTH or ESB_ADMIN_KEY: it never runs without a password")
    return f"admin:{settings.admin_key.get_secret_value()}"
