"""Real servers for the tests, cheaply: one embedded PostgreSQL and Valkey a session, a cloned database a test.

Where a server cannot run, the tests that need it are skipped on a developer's machine and fail in CI.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import psycopg2
import pytest
from tenacity import retry, retry_if_exception_type, stop_after_delay, wait_fixed

from esb_workers.node.postgres import EmbeddedPostgres
from esb_workers.node.server import ServerFailed
from esb_workers.node.valkey import EmbeddedValkey
from esb_workers.store.engine import Database
from esb_workers.store.migrate import migrate
from tests.support.rabbitmq import RabbitMissing, RabbitNode

TEMPLATE = "esb_template"

for _name in [name for name in os.environ if name.startswith(("ESB_", "DB_"))]:
    del os.environ[_name]  # a developer's own settings must not steer the tests


def pytest_itemcollected(item: pytest.Item) -> None:
    """Give each operation of the contract test an id of its own.

    They all bear the test's, and when tests are spread over processes by file, equal ids are run once.
    """
    if label := getattr(item, "operation_label", None):
        item._nodeid = f"{item.nodeid}[{label}]"


def _missing(what: str, why: Exception) -> None:
    message = f"{what} cannot run here: {why}"
    if os.environ.get("CI"):
        pytest.fail(message)
    pytest.skip(message)


def with_database(url: str, name: str) -> str:
    """The same server's URL, with another database's name."""
    return urlunsplit(urlsplit(url)._replace(path=f"/{name}"))


def _execute(url: str, *statements: str) -> None:
    connection = psycopg2.connect(url)
    connection.autocommit = True
    try:
        with connection.cursor() as cursor:
            for statement in statements:
                cursor.execute(statement)
    finally:
        connection.close()


# An autovacuum worker that is just in the database is a superuser's, and may not be sent away.
@retry(retry=retry_if_exception_type(psycopg2.Error), wait=wait_fixed(0.1), stop=stop_after_delay(10), reraise=True)
def _drop(url: str, name: str) -> None:
    _execute(url, f"drop database if exists {name} with (force)")


@pytest.fixture(scope="session")
def postgres_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a real PostgreSQL, which holds a migrated template database."""
    # Durability is what the drills test, on servers of their own; here it would only cost time.
    fast = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off", "max_wal_size": "4GB"}
    try:
        server = EmbeddedPostgres(tmp_path_factory.mktemp("pg"), settings=fast)
        server.start()
    except (ServerFailed, OSError) as error:
        _missing("the embedded PostgreSQL", error)
    try:
        template = with_database(server.url, TEMPLATE)
        _execute(server.url, f"create database {TEMPLATE}")
        migrate(template)
        yield server.url
    finally:
        server.stop()


@pytest.fixture(scope="session")
def valkey_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a real Valkey (speaks Redis)."""
    try:
        server = EmbeddedValkey(tmp_path_factory.mktemp("valkey"))
        server.start()
    except (ServerFailed, OSError) as error:
        _missing("the embedded Valkey", error)
    try:
        yield server.url
    finally:
        server.stop()


@pytest.fixture(scope="session")
def rabbitmq_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a real RabbitMQ, a node of this session's own."""
    node = RabbitNode(tmp_path_factory.mktemp("rabbitmq"))
    try:
        node.start()
    except (RabbitMissing, OSError) as error:
        _missing("RabbitMQ", error)
    try:
        yield node.url
    finally:
        node.stop()


@pytest.fixture
def database_url(postgres_url: str, request: pytest.FixtureRequest) -> Iterator[str]:
    """A fresh, migrated database of this test's own."""
    name = f"t{os.getpid()}_{time.monotonic_ns()}"
    _execute(postgres_url, f"create database {name} template {TEMPLATE} strategy file_copy")
    yield with_database(postgres_url, name)
    _drop(postgres_url, name)


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    """The store of this test's own database."""
    store = Database(database_url, pool_size=8, name="test")
    yield store
    store.dispose()


@pytest.fixture
def redis_url(valkey_url: str) -> Iterator[str]:
    """An empty Redis database."""
    import redis

    client = redis.Redis.from_url(valkey_url.replace("redis+socket://", "unix://"))
    client.flushall()
    yield valkey_url
    client.close()


@pytest.fixture
def eventually() -> Callable[..., None]:
    """Waits until a condition holds: `eventually(lambda: receiver.hits == 3)`; fails after `seconds`."""

    def wait(condition: Callable[[], object], seconds: float = 10.0, every: float = 0.02) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > deadline:
                raise AssertionError(f"did not come true within {seconds} s")
            time.sleep(every)

    return wait


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    """An empty data directory."""
    return tmp_path / "data"
