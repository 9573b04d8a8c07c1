"""What inbound webhooks, message types and listeners have beyond the calls that every resource has."""

from __future__ import annotations

from typing import Any

import click

from esb_api.cli.connection import Connection, connected
from esb_api.cli.inputs import Document, show
from esb_api.cli.output import show_json, show_rows
from esb_api.client import Json


@click.command("rotate-secret")
@click.argument("ingress_id", metavar="ID")
@click.option("--secret", help="The sender's new secret, where it makes its own.")
@click.option("--overlap", type=click.IntRange(0), metavar="MS", help="How long the old ones stay good.")
@connected
def rotate_secret(connection: Connection, ingress_id: str, secret: str | None, overlap: int | None) -> None:
    """Give an inbound webhook another secret; one that is made here is shown once."""
    given = {"secret": secret, "overlap": overlap}
    body: Json = {name: value for name, value in given.items() if value is not None}
    show(connection, connection.client.ingress.act(ingress_id, "secret/rotate", body))


@click.command("refusals")
@click.argument("ingress_id", metavar="ID")
@connected
def refusals(connection: Connection, ingress_id: str) -> None:
    """List the requests that were refused, newest first."""
    page = connection.client.ingress.act(ingress_id, "refusals", method="GET")
    _page(connection, page, ("at", "status", "code", "reason", "remote"))


@click.command("validate")
@click.argument("type_id", metavar="ID")
@click.argument("payload", type=Document())
@connected
def validate(connection: Connection, type_id: str, payload: Any) -> None:
    """Hold a payload, JSON or YAML, @FILE, or @-, against the type's schema."""
    show(connection, connection.client.message_types.act(type_id, "validate", {"payload": payload}))


@click.command("parked")
@click.argument("listener_id", metavar="ID")
@connected
def parked(connection: Connection, listener_id: str) -> None:
    """List the messages that could not be taken, newest first."""
    page = connection.client.listeners.act(listener_id, "parked", method="GET")
    _page(connection, page, ("id", "at", "reason"))


@click.command("replay")
@click.argument("listener_id", metavar="ID")
@click.argument("parked_id", metavar="PARKED_ID")
@connected
def replay_parked(connection: Connection, listener_id: str, parked_id: str) -> None:
    """Take a parked message by today's mapping."""
    show(connection, connection.client.listeners.act(listener_id, f"parked/{parked_id}/replay"))


def _page(connection: Connection, page: Json, columns: tuple[str, ...]) -> None:
    if connection.as_json:
        show_json(page)
    else:
        show_rows(page["items"], columns)
