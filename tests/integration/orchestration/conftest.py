"""Fixtures of the workflow tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from esb_workers.app import make_celery
from esb_workers.orchestration.tasks import StrandEngine, make_engine
from esb_workers.runtime.ringer import Ringer
from esb_workers.settings import Settings
from esb_workers.store.engine import Database
from tests.support.workflows import Bench


@pytest.fixture
def bench(database: Database) -> Bench:
    """An engine over a fresh database."""
    return Bench(database)


@pytest.fixture
def pool(settings: Settings, database: Database) -> Iterator[StrandEngine]:
    """The orchestration pool in this process; no broker, so it looks for itself."""
    settings = settings.model_copy(update={"sweep_seconds": 0.2, "lease_seconds": 5.0})
    ringer = Ringer(make_celery(settings))
    engine = make_engine(settings, database, ringer, slots=8)
    engine.start()
    yield engine
    engine.stop(5)
    ringer.close()
