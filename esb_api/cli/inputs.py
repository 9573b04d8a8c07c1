"""What commands take, documents and pairs, and how they show one answer."""

from __future__ import annotations

from typing import Any

import click
import yaml

from esb_api.cli.connection import Connection
from esb_api.cli.output import show_json, show_one
from esb_api.client import Json


class Document(click.ParamType[Any]):
    """JSON or YAML: given as such, or `@FILE`, or `@-` for standard input."""

    name = "JSON"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if not isinstance(value, str):
            return value
        try:
            if value.startswith("@"):
                with click.open_file(value[1:], encoding="utf-8") as file:
                    return yaml.safe_load(file)
            return yaml.safe_load(value)
        except OSError as error:
            self.fail(f"{value[1:]}: {error.strerror}", param, ctx)
        except yaml.YAMLError as error:
            self.fail(f"this is neither JSON nor YAML: {error}", param, ctx)


class Pair(click.ParamType[Any]):
    """`NAME=VALUE`."""

    name = "NAME=VALUE"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if not isinstance(value, str):
            return value
        name, equals, content = value.partition("=")
        if not name or not equals:
            self.fail(f"{value!r} is not NAME=VALUE", param, ctx)
        return name, content


def show(connection: Connection, value: Any) -> None:
    if connection.as_json:
        show_json(value)
    elif isinstance(value, dict):
        show_one(value)


def as_object(document: Any) -> Json:
    if not isinstance(document, dict):
        raise click.UsageError("the document must be an object")
    return document
