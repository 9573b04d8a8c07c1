"""`esb executions rerun`, `skip` and `bulk`: an operator's hand on runs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import click

from esb_api.cli.connection import Connection, connected
from esb_api.cli.inputs import Document, Pair, as_object, show
from esb_api.client import Json


@click.command("rerun")
@click.argument("execution_id", metavar="ID")
@click.option("--from", "from_step", metavar="STEP", help="Id or path of the step to go on from.  [default: the first]")
@click.option("--context", type=Document(), default="{}", help="A merge patch on the context as it was at that step.")
@connected
def rerun(connection: Connection, execution_id: str, from_step: str | None, context: Any) -> None:
    """Run what has ended once more, from any of its steps."""
    body: Json = {"context": as_object(context)}
    if from_step is not None:
        body["fromStep"] = from_step
    show(connection, connection.client.executions.act(execution_id, "rerun", body))


@click.command("skip")
@click.argument("execution_id", metavar="ID")
@click.argument("step")
@connected
def skip(connection: Connection, execution_id: str, step: str) -> None:
    """Pass by STEP (its id or path) of a run that is held or has failed."""
    show(connection, connection.client.executions.act(execution_id, "skip", {"step": step}))


@click.command("bulk")
@click.argument("action", type=click.Choice(["cancel", "pause", "resume", "retry"]))
@click.option(
    "-f",
    "--filter",
    "filters",
    type=Pair(),
    multiple=True,
    required=True,
    help="Which runs, such as status=failed; given twice, either value will do.",
)
@click.option("--dry-run", is_flag=True, help="Only say which runs it would take.")
@click.option("--reason", help="Of a cancel: why.")
@click.option("--compensate", is_flag=True, help="Of a cancel: undo the completed steps.")
@connected
def bulk(
    connection: Connection,
    action: str,
    filters: Sequence[tuple[str, str]],
    dry_run: bool,
    reason: str | None,
    compensate: bool,
) -> None:
    """Do ACTION to many runs at once. What is asked is stored, and carried out whatever happens to the processes."""
    body: Json = {"action": action, "filter": _filter(filters), "dryRun": dry_run}
    if reason is not None:
        body["reason"] = reason
    if compensate:
        body["compensate"] = True
    show(connection, connection.client.bulk.create(body))


def _filter(pairs: Sequence[tuple[str, str]]) -> Json:
    """By name: the value, or the list of those that were given; ids are always a list."""
    values: dict[str, list[str]] = {}
    for name, value in pairs:
        values.setdefault(name, []).append(value)
    return {name: found[0] if len(found) == 1 and name != "ids" else found for name, found in values.items()}
