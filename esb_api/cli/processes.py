"""`esb up` and the single processes: api, worker, scheduler, flower, migrate."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import click

from esb_api.client import ApiError, Client
from esb_workers.errors import SettingsError
from esb_workers.node.parent import end_with_parent
from esb_workers.node.supervisor import StopRequested
from esb_workers.node.up import Machine, Plan
from esb_workers.queues import POOLS, PoolName
from esb_workers.settings import Settings

_pool = click.Choice(POOLS)


def esb_command() -> list[str]:
    """The command that starts a process of the bus with its role in plain sight: `esb worker delivery`."""
    script = Path(sys.executable).with_name("esb")
    return [sys.executable, str(script)] if script.is_file() else [sys.executable, "-m", "esb_api.cli"]


def is_ready(url: str, pools: Sequence[PoolName]) -> bool:
    """Whether the bus at `url` takes work and every pool has a worker that does it."""
    try:
        with Client(url, timeout=5) as bus:
            health = bus.health()
    except ApiError:
        return False
    workers = health.get("workers", {})
    return health.get("status") == "ok" and all(workers.get(pool, 0) > 0 for pool in pools)


def _workers(context: click.Context, parameter: click.Parameter, values: Sequence[str]) -> Mapping[PoolName, int]:
    counts: dict[PoolName, int] = {}
    for value in values:
        name, _, number = value.partition("=")
        pool = next((pool for pool in POOLS if pool == name), None)
        if pool is None or not number.isdigit() or int(number) > 64:
            raise click.BadParameter(f"{value!r} is not POOL=N with a pool of {', '.join(POOLS)} and N from 0 to 64")
        counts[pool] = int(number)
    return counts


@click.command()
@click.option("--port", type=click.IntRange(0, 65535), help="Port of the API; 0 takes any free one.  [default: 8080]")
@click.option(
    "--data-dir", type=click.Path(file_okay=False, path_type=Path), help="Where everything is kept.  [default: .esb]"
)
@click.option(
    "--workers",
    metavar="POOL=N",
    multiple=True,
    callback=_workers,
    help="Processes of a pool; may be repeated.  [default: 1 each]",
)
@click.option("--no-flower", is_flag=True, help="Without the Flower dashboard.")
def up(port: int | None, data_dir: Path | None, workers: Mapping[PoolName, int], no_flower: bool) -> None:
    """Run the whole bus on this machine until Ctrl-C.

    PostgreSQL and Redis are embedded unless ESB_DATABASE_URL and ESB_BROKER_URL name servers. What dies is started
    again; a clean stop loses nothing.
    """
    settings = Settings.load(api_port=port, data_dir=data_dir)
    plan = Plan(esb=esb_command(), ready=is_ready, workers=workers, flower=not no_flower)
    try:
        with Machine(settings, plan, click.echo) as machine:
            _announce(machine)
            machine.supervisor.watch()
            click.echo("Stopping")
    except StopRequested:
        click.echo("Stopped while starting")
        return
    click.echo("Stopped; nothing is lost")


def _announce(machine: Machine) -> None:
    url = machine.addresses.api
    lines = {"API": url, "Documents": f"{url}/docs", "Health": f"{url}/health/ready"}
    if machine.addresses.flower:
        login = "your ESB_FLOWER_AUTH" if machine.settings.flower_auth else "admin and the operator key"
        lines["Flower"] = f"{machine.addresses.flower}  (log in with {login})"
    if machine.new_admin_key:
        lines["Operator key"] = f"{machine.new_admin_key}  (shown once; kept in {machine.admin_key_file})"
    else:
        lines["Operator key"] = f"in {machine.admin_key_file}" if machine.admin_key_file else "as set by ESB_ADMIN_KEY"
    lines["Logs"] = str(machine.settings.data_dir / "logs")
    for name, value in lines.items():
        click.echo(f"{name + ':':<14}{value}")
    click.echo("The bus is up. Ctrl-C stops it.")


@click.command()
def api() -> None:
    """Serve the REST API."""
    from esb_api.app import create_app
    from esb_api.cli.server import serve

    settings = _servers_named(Settings.load())
    end_with_parent()
    serve(settings, create_app)


@click.command()
@click.argument("pool", type=_pool, metavar="POOL")
@click.option(
    "--concurrency", type=click.IntRange(1, 512), help="Calls under way at once.  [default: ESB_WORKER_CONCURRENCY, 32]"
)
@click.option("--queue", metavar="NAME", help="orchestration: run the plug-in steps of this queue alone.")
def worker(pool: PoolName, concurrency: int | None, queue: str | None) -> None:
    """Work for one POOL: routing, delivery, orchestration, health or ingress."""
    from esb_workers.worker import run

    settings = _servers_named(Settings.load())
    end_with_parent()
    sys.exit(run(settings, pool, concurrency, queue=queue))


@click.command()
def scheduler() -> None:
    """Keep time: due timers, lost leases, schedules, retention. Several may run."""
    from esb_workers.upkeep.scheduler import run

    settings = _servers_named(Settings.load())
    end_with_parent()
    sys.exit(run(settings))


@click.command()
def flower() -> None:
    """Serve the Flower dashboard over the pools, read-only and behind a password."""
    from esb_workers.node.flower import run

    settings = Settings.load()
    if settings.broker_url is None:
        raise SettingsError("ESB_BROKER_URL is not set: Flower watches the broker")
    end_with_parent()
    run(settings)


@click.command()
@click.option(
    "--wait",
    "wait_seconds",
    type=click.FloatRange(0, 3600),
    default=30,
    show_default=True,
    help="Seconds to wait for the database.",
)
def migrate(wait_seconds: float) -> None:
    """Create the bus's tables in ESB_DATABASE_URL, or bring them up to date."""
    from esb_workers.store import migrate as schema

    settings = Settings.load()
    if settings.database_url is None:
        raise SettingsError(
            "ESB_DATABASE_URL is not set: there is no database to migrate (`esb up` does it for its own)"
        )
    version = schema.migrate(settings.database_url.get_secret_value(), wait_seconds=wait_seconds)
    click.echo(f"The schema is version {version}")


def _servers_named(settings: Settings) -> Settings:
    if settings.database_url is None:
        raise SettingsError("ESB_DATABASE_URL is not set: this process needs a database (`esb up` brings its own)")
    return settings


COMMANDS: Final = (up, api, worker, scheduler, flower, migrate)
