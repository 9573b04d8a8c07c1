"""Which API processes die at a crash point in a fault drill."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from esb_api.cli.server import Server
from esb_workers import drill
from esb_workers.settings import Settings


def test_the_first_api_processes_are_armed_and_those_that_replace_them_are_not(monkeypatch: pytest.MonkeyPatch) -> None:
    armed: list[str | None] = []
    monkeypatch.setattr(drill, "arm", armed.append)
    server = Server(Settings(crash_at=drill.AFTER_INSERT, api_processes=2), lambda settings: None)
    for age in (1, 2, 3, 4):  # gunicorn counts its worker processes from the first on
        server.cfg.post_fork(server, SimpleNamespace(age=age))
    assert armed == [drill.AFTER_INSERT] * 2
