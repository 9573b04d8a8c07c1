"""The REST API over a database of the test's own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from cryptography.fernet import Fernet

from esb_api.app import create_app
from esb_workers.settings import Settings
from tests.support.api import OPERATOR_KEY, ApiClient

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
