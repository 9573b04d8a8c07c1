"""The ringer while the broker is away: it tries again and again, and holds no more for it."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from esb_workers.app import make_celery
from esb_workers.runtime.ringer import Ringer
from esb_workers.settings import Settings

FILES = Path("/proc/self/fd")


def open_files() -> int:
    return sum(1 for _ in FILES.iterdir())


@pytest.mark.skipif(not FILES.is_dir(), reason="counts files by /proc")
def test_a_broker_that_says_nothing_costs_no_file_at_each_try(
    eventually: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("esb_workers.runtime.ringer.TIMEOUT", 0.1)
    monkeypatch.setattr("esb_workers.runtime.ringer.RETRY_PAUSE", 0.01)
    with socket.create_server(("127.0.0.1", 0)) as silent:  # takes connections into its backlog, and that is all
        url = f"redis://127.0.0.1:{silent.getsockname()[1]}/0"
        ringer = Ringer(make_celery(Settings.load({}, None, broker_url=url)))
        stop = threading.Event()

        def ring() -> None:
            while not stop.wait(0.02):
                ringer.ring("delivery")

        threading.Thread(target=ring, daemon=True).start()
        eventually(lambda: ringer.failures >= 3)
        before = open_files()
        eventually(lambda: ringer.failures >= 15, seconds=30)
        assert open_files() <= before + 3
        stop.set()
        ringer.close()
