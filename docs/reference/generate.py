"""Writes the pages of this folder that are made from the code: settings.md, cli.md, rest.md, workflow.schema.json.

python docs/reference/generate.py            writes them
python docs/reference/generate.py --check    exits 1 if one of them is out of date (a test does the same)
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final, Literal, get_args, get_origin

import click

FOLDER: Final = Path(__file__).parent
_MADE: Final = "<!-- Made by docs/reference/generate.py; change the code, not this page. -->"


def settings_page() -> str:
    """Every `ESB_…` variable."""
    from esb_workers.settings import Settings

    rows = [
        (
            f"`ESB_{name.upper()}`",
            _default(field.default),
            _takes(field.metadata, field.annotation),
            field.description or "",
        )
        for name, field in Settings.model_fields.items()
    ]
    return _page(
        "Settings",
        "Environment variables, or lines of a `.env` file in the working directory; the environment wins. A value that"
        " does not fit, or a name under `ESB_` that is not listed here, is named at the start, and the process does not"
        " start. `DB_HOST`, `DB_PORT`, `DB_USERNAME`, `DB_PASSWORD` and `DB_NAME` stand in for `ESB_DATABASE_URL` when"
        " that is not set and both `DB_HOST` and `DB_NAME` are.",
        _table(("setting", "default", "takes", "what it does"), rows),
    )


def _default(value: Any) -> str:
    text = ", ".join(map(str, value)) if isinstance(value, tuple) else str(value)
    return "" if value is None or not text else f"`{text}`"


def _takes(metadata: list[Any], annotation: Any) -> str:
    least = next((m.ge for m in metadata if hasattr(m, "ge")), None)
    most = next((m.le for m in metadata if hasattr(m, "le")), None)
    if least is not None:
        return f"{least}–{most}" if most is not None else f"{least} or more"
    if get_origin(annotation) is Literal:
        return ", ".join(f"`{word}`" for word in get_args(annotation))
    if get_origin(annotation) is tuple:
        return "comma list"
    kind = next(kind for kind in (*get_args(annotation), annotation) if kind is not type(None))
    return {"SecretStr": "secret", "Path": "path"}.get(kind.__name__, "text")


def cli_page() -> str:
    """Every command of `esb`, by its own help."""
    from esb_api.cli.main import esb

    return _page(
        "The command line",
        "One command, `esb`, with help on every level. It prints plain text for people and, with `--json`, JSON for"
        " programs. Exit codes: 0 done, 1 failed, 2 wrong usage. In a worker image, where the API is not installed,"
        " `python -m esb_workers worker POOL | scheduler | flower | migrate | alive` starts the same processes.",
        "\n\n".join(_commands(esb, "esb")),
    )


def _commands(command: click.Command, name: str) -> Iterator[str]:
    context = click.Context(command, info_name=name, max_content_width=100, terminal_width=100)
    yield f"## `{name}`\n\n```text\n{command.get_help(context)}\n```"
    if isinstance(command, click.Group):
        for child in command.list_commands(context):
            found = command.get_command(context, child)
            assert found is not None
            yield from _commands(found, f"{name} {child}")


def rest_page() -> str:
    """Every call of the REST API; the details are in the served OpenAPI document."""
    from esb_api.resources import RESOURCES

    parts = []
    for resource in RESOURCES:
        rows = [
            (f"`{o.method}`", f"`{o.path}`", _who(o.access.name), _summary(o.view))
            for o in sorted(resource.operations, key=lambda o: (o.path, o.method))
        ]
        parts.append(
            f"## {resource.name.replace('_', ' ').capitalize()}\n\n" + _table(("", "path", "key", "what it does"), rows)
        )
    return _page(
        "The REST API",
        "An overview. Bodies, parameters, answers and refusals of each call are in the document that the bus serves"
        " itself: `/docs` to read and to try out, `/openapi.json` for programs. *Operator* is the operator's key,"
        " *client* a client's key too, *service* a service's heartbeat key too, *open* no key. What all calls share"
        " (errors, lists, `ETag`, `Idempotency-Key`, waiting) is in [conventions](conventions.md).",
        "\n\n".join(parts),
    )


def _who(access: str) -> str:
    return access.lower()


def _summary(view: Callable[..., Any]) -> str:
    return (view.__doc__ or "").strip().splitlines()[0]


def _page(title: str, lead: str, body: str) -> str:
    return f"# {title}\n\n{_MADE}\n\n{lead}\n\n{body}\n"


def _table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    lines = [head, tuple("---" for _ in head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def workflow_schema() -> str:
    """The JSON Schema of definitions, of the step types that the bus brings."""
    from esb_workers.orchestration.published import definition_schema
    from esb_workers.orchestration.steps import BUILTIN, step_types

    return json.dumps(definition_schema({name: step_types()[name] for name in BUILTIN}), indent=1) + "\n"


PAGES: Final[dict[str, Callable[[], str]]] = {
    "settings.md": settings_page,
    "cli.md": cli_page,
    "rest.md": rest_page,
    "workflow.schema.json": workflow_schema,
}


def out_of_date() -> list[str]:
    """Names of pages that differ from what the code says now."""
    files = {name: FOLDER / name for name in PAGES}
    return [n for n, make in PAGES.items() if not files[n].exists() or files[n].read_text(encoding="utf-8") != make()]


if __name__ == "__main__":
    if "--check" in sys.argv:
        sys.exit(f"out of date: {', '.join(stale)}" if (stale := out_of_date()) else 0)
    for page, make_page in PAGES.items():
        (FOLDER / page).write_text(make_page(), encoding="utf-8")
