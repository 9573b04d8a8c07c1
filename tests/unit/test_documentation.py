"""The documents say what the code does: generated pages are fresh, links lead somewhere, lists are complete."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from esb_workers import errors

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")] + sorted(ROOT.glob("docs/**/*.md"))
_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")


def test_generated_pages_are_up_to_date() -> None:
    run = subprocess.run(
        [sys.executable, str(ROOT / "docs/reference/generate.py"), "--check"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr + "run: python docs/reference/generate.py"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    targets = [link.partition("#")[0] for link in _LINK.findall(page.read_text(encoding="utf-8"))]
    local = [target for target in targets if target and "://" not in target]
    assert [target for target in local if not (page.parent / target).exists()] == []


def test_every_error_code_is_documented() -> None:
    text = (ROOT / "docs/reference/errors.md").read_text(encoding="utf-8")
    sources = [*(ROOT / "esb_api").rglob("*.py"), *(ROOT / "esb_workers").rglob("*.py")]
    raised = {code for file in sources for code in re.findall(r'\bcode="([a-z_]+)"', file.read_text(encoding="utf-8"))}
    classes = {c.code for c in vars(errors).values() if isinstance(c, type) and issubclass(c, errors.EsbError)}
    assert sorted(code for code in raised | classes if f"`{code}`" not in text) == []


def test_the_readme_starts_the_demo_and_the_tests_with_one_line_each() -> None:
    lines = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()
    commands = [line for line in lines if line.startswith("python3 -m venv ")]
    assert commands[0].endswith(".venv/bin/esb demo")
    assert " && .venv/bin/pytest" in commands[1]


def test_every_page_is_reached_from_the_index() -> None:
    index = (ROOT / "docs/README.md").read_text(encoding="utf-8")
    pages = {str(p.relative_to(ROOT / "docs")) for p in ROOT.glob("docs/**/*.md")} - {"README.md"}
    assert sorted(page for page in pages if f"({page})" not in index) == []
