"""Fixtures of the workflow tests."""

from __future__ import annotations

import pytest

from esb_workers.store.engine import Database
from tests.support.workflows import Bench


@pytest.fixture
def bench(database: Database) -> Bench:
    """An engine over a fresh database."""
    return Bench(database)
