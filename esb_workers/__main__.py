"""`python -m esb_workers worker POOL | scheduler | flower | migrate | alive`: the processes that need no `esb_api`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from esb_workers.errors import EsbError, SettingsError
from esb_workers.node.parent import end_with_parent
from esb_workers.queues import POOLS
from esb_workers.settings import Settings


def main(argv: Sequence[str] | None = None) -> int:
    """Run one process until it is told to end; returns the exit code: 0, 1 failed, 2 wrong usage."""
    arguments = _parser().parse_args(argv)
    try:
        settings = Settings.load()
        end_with_parent()
        return _run(arguments, settings)
    except EsbError as error:
        print(f"Error: {error}", file=sys.stderr)
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("python -m esb_workers", description="One process of the bus. Settings: ESB_….")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    worker = commands.add_parser("worker", help="work for one pool")
    worker.add_argument("pool", choices=POOLS, metavar="POOL", help=", ".join(POOLS))
    worker.add_argument("--concurrency", type=int, metavar="N", help="calls under way at once")
    worker.add_argument("--queue", metavar="NAME", help="orchestration: run the plug-in steps of this queue alone")
    commands.add_parser("scheduler", help="keep time: timers, lost leases, schedules, retention")
    commands.add_parser("flower", help="the Flower dashboard over the pools")
    commands.add_parser("migrate", help="create the tables, or bring them up to date")
    commands.add_parser("alive", help="exit 0 if a process of this host keeps up its heartbeat; for health checks")
    return parser


def _run(arguments: argparse.Namespace, settings: Settings) -> int:
    # Imported as they are needed: a process loads what it runs and nothing else.
    if arguments.command == "worker":
        from esb_workers import worker

        return worker.run(settings, arguments.pool, arguments.concurrency, queue=arguments.queue)
    if arguments.command == "scheduler":
        from esb_workers.orchestration.schedules import duty
        from esb_workers.upkeep import scheduler

        return scheduler.run(settings, duty)
    if arguments.command == "flower":
        from esb_workers.node import flower

        flower.run(settings)
        return 0
    if settings.database_url is None:
        raise SettingsError("ESB_DATABASE_URL is not set: there is no database to look into")
    if arguments.command == "alive":
        return _alive(settings.database_url.get_secret_value())
    from esb_workers.store.migrate import migrate

    print(f"The schema is version {migrate(settings.database_url.get_secret_value(), wait_seconds=30)}")
    return 0


def _alive(database_url: str) -> int:
    import socket

    from esb_workers.store import workers
    from esb_workers.store.engine import Database

    with Database(database_url, pool_size=1, name="esb alive").cursor() as cursor:
        return 0 if workers.alive_on(cursor, socket.gethostname()) else 1


if __name__ == "__main__":
    sys.exit(main())
