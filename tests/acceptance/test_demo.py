"""`esb demo`: from nothing to the tables at its end, and nothing left behind."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path


def test_the_demo_shows_routing_by_content_a_retry_and_a_triage_and_ends_well(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "esb_api.cli", "demo"],
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
        cwd=tmp_path,
        env={"PATH": "/usr/bin:/bin", "TMPDIR": str(tmp_path), "ESB_DATABASE_URL": "postgresql://not.used/here"},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    rows = [line.split() for line in done.stdout.splitlines()]
    assert ["send-welcome-email", "service_call", "completed", "2"] in rows
    assert ["user-events", "analytics-service", "forbidden", "0"] in rows
    assert ["github-pager", "pager", "delivered", "1"] in rows
    assert ["github-triage", "triage-service", "delivered", "1"] in rows
    assert sum(row[-2:] == ["delivered", "1"] and "github-audit" in row for row in rows) == 14
    assert sum(row[:2] == ["github-ci", "ci-service"] for row in rows) == 3
    assert list(tmp_path.iterdir()) == []
