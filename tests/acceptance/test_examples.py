"""The examples do what they say, against a whole running bus."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.bus import RunningBus

FOLDER = Path(__file__).parents[2] / "examples"
#: The patterns run one after another in one process: each is quick, the start of a process is not.
EXAMPLES = [*sorted(FOLDER.glob("[0-9]*.py")), FOLDER / "patterns"]


@pytest.fixture(scope="module")
def bus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningBus]:
    with RunningBus(tmp_path_factory.mktemp("examples")) as running:
        yield running


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_runs(bus: RunningBus, example: Path) -> None:
    environment = {**os.environ, "ESB_URL": f"http://127.0.0.1:{bus.port}", "ESB_API_KEY": bus.admin_key}
    run = subprocess.run(
        [sys.executable, str(example)], env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert run.returncode == 0, run.stdout + run.stderr
