"""What the command line prints: JSON for programs, tables for people. Never cut, never wrapped."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import click

Row = Mapping[str, Any]


def show_json(value: object) -> None:
    """For programs: the answer as it is."""
    click.echo(json.dumps(value, indent=2, ensure_ascii=False))


def table(rows: Sequence[Row], columns: Sequence[str]) -> str:
    """Aligned columns under a heading; a column is a dotted path into the row."""
    cells = [[_cell(_at(row, column)) for column in columns] for row in rows]
    heading = [column.rpartition(".")[2] for column in columns]
    widths = [max(len(line[i]) for line in [heading, *cells]) for i in range(len(columns))]
    lines = [heading, ["-" * width for width in widths], *cells]
    return "\n".join(
        "  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip() for line in lines
    )


def show_rows(rows: Sequence[Row], columns: Sequence[str]) -> None:
    """For people: a table, or a word that there is nothing."""
    click.echo(table(rows, columns) if rows else "none")


def show_one(value: Mapping[str, Any]) -> None:
    """For people: one resource, a field a line."""
    width = max((len(name) for name in value), default=0)
    for name, content in value.items():
        click.echo(f"{name.ljust(width)}  {_cell(content)}")


def _at(row: Any, path: str) -> Any:
    for name in path.split("."):
        row = row.get(name) if isinstance(row, Mapping) else None
    return row


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        return ", ".join(value) or "-"
    if isinstance(value, str | int | float):
        return str(value)
    return json.dumps(value, ensure_ascii=False)
