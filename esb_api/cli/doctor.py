"""`esb doctor`: what is wrong with this bus, and what to do about it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Final, Literal

import click
from pydantic import SecretStr

from esb_api.cli.output import show_json
from esb_workers.errors import EsbError
from esb_workers.node.addresses import Addresses
from esb_workers.queues import POOL_IDS, POOLS, PoolName
from esb_workers.settings import Settings
from esb_workers.store import diagnosis, jobs, migrate, step_queues, workers
from esb_workers.store.engine import Database

Verdict = Literal["ok", "warning", "failed"]

_OLDEST_POSTGRES: Final = 14
_CLOCK_WARNING: Final = 1.0  # seconds between this machine's clock and the database's
_CLOCK_FAILED: Final = 60.0
_LATE_MS: Final = 60_000  # age of due work at which something does not keep up
_MARKS: Final[dict[Verdict, str]] = {"ok": "ok     ", "warning": "warning", "failed": "FAILED "}


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at: what was found, and what to do if it is not well."""

    check: str
    verdict: Verdict
    found: str
    advice: str | None = None


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print the findings as JSON.")
@click.pass_context
def doctor(context: click.Context, as_json: bool) -> None:
    """Check database, broker, schema, clock, workers and queues, and say what to do.

    Looks at the servers that the settings name, else at the bus that runs on this data directory.
    """
    findings = list(examine(_named_servers(Settings.load())))
    if as_json:
        show_json({"healthy": _healthy(findings), "findings": [asdict(finding) for finding in findings]})
    else:
        for finding in findings:
            click.echo(f"{_MARKS[finding.verdict]}  {finding.check:<9}  {finding.found}")
            if finding.advice:
                click.echo(f"{'':18}  → {finding.advice}")
    context.exit(0 if _healthy(findings) else 1)


def _healthy(findings: list[Finding]) -> bool:
    return all(finding.verdict != "failed" for finding in findings)


def _named_servers(settings: Settings) -> Settings:
    """The settings, with the servers of the local bus where they name none."""
    running = Addresses.read(settings.data_dir)
    if running is None:
        return settings
    update = {
        "database_url": settings.database_url or SecretStr(running.database),
        "broker_url": settings.broker_url or SecretStr(running.broker),
    }
    return settings.model_copy(update=update)


def examine(settings: Settings) -> Iterator[Finding]:
    """Every check in turn; those that need the database only when it answers."""
    yield _broker(settings)
    if settings.database_url is None:
        advice = "set ESB_DATABASE_URL, or run `esb up`, or name the data directory of a running bus by ESB_DATA_DIR"
        yield Finding("database", "failed", f"none is named, and no bus runs on {settings.data_dir}", advice)
        return
    database = Database(settings.database_url.get_secret_value(), pool_size=1, name="esb doctor")
    try:
        first = _guarded("database", "is it running, and is ESB_DATABASE_URL right?", lambda: _server(database))
        yield first
        if first.verdict != "failed":
            yield from _inside(database)
    finally:
        database.dispose()


def _inside(database: Database) -> Iterator[Finding]:
    yield _guarded("clock", "look at the database's log", lambda: _clock(database))
    schema = _guarded(
        "schema", "run `esb migrate`, and upgrade this code if it is the older", lambda: _schema(database)
    )
    yield schema
    if schema.verdict != "failed":
        yield from _workers(database)
        yield from _queues(database)


def _guarded(check: str, advice: str, look: Callable[[], Finding]) -> Finding:
    try:
        return look()
    except EsbError as error:
        return Finding(check, "failed", str(error), advice)


def _broker(settings: Settings) -> Finding:
    from esb_workers.app import make_celery

    if settings.broker_url is None:
        return Finding("broker", "failed", "none is named", "set ESB_BROKER_URL, or run `esb up`")
    with make_celery(settings).connection_for_write() as connection:
        where = connection.as_uri()
        try:
            connection.ensure_connection(max_retries=1, interval_start=0, timeout=3)
        except Exception as error:  # kombu's transports raise errors of their own, without a common root
            advice = "start it, or set ESB_BROKER_URL right; until then work is late by one sweep, nothing is lost"
            return Finding("broker", "failed", f"{where}: {error}", advice)
    return Finding("broker", "ok", where)


def _server(database: Database) -> Finding:
    with database.cursor() as cursor:
        version = diagnosis.server_version(cursor)
    if int(version.split(".")[0]) < _OLDEST_POSTGRES:
        return Finding("database", "failed", f"PostgreSQL {version}", f"{_OLDEST_POSTGRES} or newer is needed")
    return Finding("database", "ok", f"PostgreSQL {version}")


def _clock(database: Database) -> Finding:
    with database.cursor() as cursor:
        before = time.time()
        there = diagnosis.clock(cursor)
        here = (before + time.time()) / 2
    found = f"{abs(here - there):.3f} s between this machine and the database"
    if abs(here - there) < _CLOCK_WARNING:
        return Finding("clock", "ok", found)
    verdict: Verdict = "failed" if abs(here - there) > _CLOCK_FAILED else "warning"
    return Finding(
        "clock",
        verdict,
        found,
        "the bus runs on the database's clock: set both by NTP, signatures are refused otherwise",
    )


def _schema(database: Database) -> Finding:
    return Finding("schema", "ok", f"version {migrate.check(database)}")


def _workers(database: Database) -> Iterator[Finding]:
    with database.cursor() as cursor:
        alive = workers.alive(cursor)
    counts: dict[PoolName, int] = {pool: alive.get(POOL_IDS[pool], 0) for pool in POOLS}
    found = ", ".join(f"{pool} {count}" for pool, count in counts.items())
    missing = [pool for pool, count in counts.items() if count == 0]
    if missing:
        advice = "start " + ", ".join(f"`esb worker {pool}`" for pool in missing) + " (or `esb up`)"
        yield Finding("workers", "failed", found, advice)
    else:
        yield Finding("workers", "ok", found)


def _queues(database: Database) -> Iterator[Finding]:
    with database.cursor() as cursor:
        figures, steps = jobs.figures(cursor), step_queues.depths(cursor)
    for queue in figures:
        pool = next(name for name, number in POOL_IDS.items() if number == queue.pool)
        yield _queue(pool, queue.due, queue.oldest_due_age_ms, f"more `esb worker {pool}`, or a look into its log")
    for depth in steps:
        worker = f"`esb worker orchestration --queue {depth.name}`"
        advice = f"more {worker}, or a look into its log" if depth.workers else f"nobody works for it: start {worker}"
        yield _queue(step_queues.bell(depth.name), depth.due, depth.oldest_due_age_ms, advice)


def _queue(name: str, due: int, oldest_ms: int, advice: str) -> Finding:
    found = f"{name}: {due} due, the oldest for {oldest_ms / 1000:.1f} s"
    return Finding("queue", "warning", found, advice) if oldest_ms > _LATE_MS else Finding("queue", "ok", found)
