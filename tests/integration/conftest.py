"""The REST API over a database of the test's own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from cryptography.fernet import Fernet

from esb_api.app import create_app
from esb_workers.settings import Settings
from esb_workers.store.engine import Database
from tests.support.api import OPERATOR_KEY, ApiClient
from tests.support.deliveries import World
from tests.support.engines import Engines
from tests.support.receiver import Receiver

SECRET_KEY = Fernet.generate_key().decode()


@pytest.fixture
def settings(database_url: str) -> Settings:
    """Settings of a bus on the test's database, without a broker."""
    return Settings.load(
        {}, None, database_url=database_url, admin_key=OPERATOR_KEY, secret_keys=(SECRET_KEY,), api_threads=8
    )


@pytest.fixture
def api(settings: Settings) -> Iterator[ApiClient]:
    """The API, called with the operator's key."""
    app = create_app(settings)
    client = ApiClient(app, OPERATOR_KEY)
    yield client
    client.context.close()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as receiver:
        yield receiver


@pytest.fixture
def world(database: Database) -> Iterator[World]:
    world = World(database)
    yield world
    world.stop()


@pytest.fixture
def running(settings: Settings, database: Database) -> Iterator[Engines]:
    with Engines(settings, database) as engines:
        yield engines
