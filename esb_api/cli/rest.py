"""The REST API from a shell: `esb services list`, `esb send`, `esb dead-letters replay` …

Each command is one call; what it prints is the API's answer, as a table for people or as JSON with `--json`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import click

from esb_api.cli import runs, trials, watch, ways_in
from esb_api.cli.connection import Connection, connected
from esb_api.cli.inputs import Document, Pair, as_object, show
from esb_api.cli.output import show_json, show_rows
from esb_api.client import Collection, Json


class Kind(NamedTuple):
    """A kind of resource: the name of its group, its collection on the client, and the columns of its list."""

    group: str
    attribute: str
    columns: Sequence[str]
    writable: bool = True

    def of(self, connection: Connection) -> Collection:
        found = getattr(connection.client, self.attribute)
        assert isinstance(found, Collection)
        return found


_SERVICES = Kind("services", "services", ("id", "name", "version", "status", "health", "circuit", "endpoint"))
_CLIENTS = Kind("clients", "clients", ("id", "name", "status", "allowedServices"))
_ROUTES = Kind("routes", "routes", ("id", "name", "pattern", "priority", "enabled", "destinations"))
_WORKFLOWS = Kind("workflows", "workflows", ("id", "name", "version", "description"))
_EXECUTIONS = Kind("executions", "executions", ("id", "workflowName", "status", "createdAt", "correlationId"), False)
_MESSAGES = Kind("messages", "messages", ("id", "messageType", "source", "status", "createdAt", "correlationId"), False)
_DEAD_LETTERS = Kind("dead-letters", "dead_letters", ("id", "messageId", "destination", "errorClass"), False)
_INGRESS = Kind("ingress", "ingress", ("id", "name", "path", "enabled", "verification.type"))
_MESSAGE_TYPES = Kind("message-types", "message_types", ("id", "name", "mode", "compatibility", "version"))
_LOOKUP_TABLES = Kind("lookup-tables", "lookup_tables", ("id", "name", "description", "updatedAt"))
_LISTENERS = Kind("listeners", "listeners", ("id", "name", "url", "status.state", "status.parkedNow"))
_SCHEDULES = Kind("schedules", "schedules", ("id", "name", "cron", "timezone", "enabled", "lastDueAt", "lastOutcome"))
_BLOCKED_KEYS = Kind("blocked-keys", "blocked_keys", ("id", "key", "destination", "state", "since", "waiting"), False)


def _group(kind: Kind, about: str) -> click.Group:
    """`list` and `get`, and for what can be written `create`, `change` and `delete`."""
    group = click.Group(kind.group, help=about)
    group.add_command(_list_command(kind))
    if kind is not _BLOCKED_KEYS:
        group.add_command(_get_command(kind))
    if kind.writable:
        group.add_command(_create_command(kind))
        if kind is not _WORKFLOWS:  # a version of a workflow stays as it is
            group.add_command(_change_command(kind))
        group.add_command(_delete_command(kind))
    return group


def _list_command(kind: Kind) -> click.Command:
    @click.command("list")
    @click.option(
        "-f", "--filter", "filters", type=Pair(), multiple=True, help="A query parameter, such as status=active."
    )
    @click.option("--limit", type=click.IntRange(1, 200), help="At most so many.  [default: 50]")
    @click.option("--cursor", help="Go on where an earlier list ended.")
    @connected
    def listing(
        connection: Connection, filters: Sequence[tuple[str, str]], limit: int | None, cursor: str | None
    ) -> None:
        """List them, newest first."""
        page = kind.of(connection).list(**dict(filters), limit=limit, cursor=cursor)
        if connection.as_json:
            show_json(page)
            return
        show_rows(page["items"], kind.columns)
        if page.get("nextCursor"):
            click.echo(f"more: --cursor {page['nextCursor']}")

    return listing


def _get_command(kind: Kind) -> click.Command:
    @click.command("get")
    @click.argument("resource_id", metavar="ID")
    @connected
    def get(connection: Connection, resource_id: str) -> None:
        """Show one."""
        show(connection, kind.of(connection).get(resource_id))

    return get


def _create_command(kind: Kind) -> click.Command:
    @click.command("create")
    @click.argument("body", type=Document())
    @connected
    def create(connection: Connection, body: Any) -> None:
        """Create one from JSON or YAML, given as such, as @FILE, or as @- for standard input."""
        show(connection, kind.of(connection).create(as_object(body)))

    return create


def _change_command(kind: Kind) -> click.Command:
    @click.command("change")
    @click.argument("resource_id", metavar="ID")
    @click.argument("patch", type=Document())
    @connected
    def change(connection: Connection, resource_id: str, patch: Any) -> None:
        """Change one by a merge patch, JSON or YAML, @FILE, or @-: null resets a field."""
        show(connection, kind.of(connection).change(resource_id, as_object(patch)))

    return change


def _delete_command(kind: Kind) -> click.Command:
    @click.command("delete")
    @click.argument("resource_id", metavar="ID")
    @connected
    def delete(connection: Connection, resource_id: str) -> None:
        """Delete one."""
        kind.of(connection).delete(resource_id)
        if not connection.as_json:
            click.echo(f"{resource_id} is deleted")

    return delete


def _action_command(kind: Kind, action: str, about: str) -> click.Command:
    @click.command(action, help=about)
    @click.argument("resource_id", metavar="ID")
    @connected
    def act(connection: Connection, resource_id: str) -> None:
        show(connection, kind.of(connection).act(resource_id, action))

    return act


@click.command()
@click.argument("message_type", metavar="TYPE")
@click.argument("payload", type=Document(), default="{}")
@click.option("--source", default="esb-cli", show_default=True, help="Who the message is from.")
@click.option("-H", "--header", "headers", type=Pair(), multiple=True, help="A header of the message.")
@click.option("--correlation-id", help="Ties the message to others.")
@click.option("--ordering-key", help="Messages of one key arrive in order.")
@click.option("--priority", type=click.IntRange(0, 9), help="9 is the highest.  [default: 5]")
@click.option("--idempotency-key", help="The same key and message again sends nothing new.")
@click.option("--wait", type=click.IntRange(0, 30), metavar="SECONDS", help="Wait for the final state.")
@connected
def send(
    connection: Connection,
    message_type: str,
    payload: Any,
    source: str,
    headers: Sequence[tuple[str, str]],
    correlation_id: str | None,
    ordering_key: str | None,
    priority: int | None,
    idempotency_key: str | None,
    wait: int | None,
) -> None:
    """Send a message of TYPE. PAYLOAD is JSON or YAML, @FILE, or @- for standard input."""
    message: Json = {"source": source, "messageType": message_type, "payload": payload, "headers": dict(headers)}
    optional = {"correlationId": correlation_id, "orderingKey": ordering_key, "priority": priority}
    message |= {name: value for name, value in optional.items() if value is not None}
    show(connection, connection.client.send(message, wait=wait, idempotency_key=idempotency_key))


@click.command("start")
@click.argument("workflow")
@click.argument("context", type=Document(), default="{}")
@click.option("--version", help="The workflow's version.  [default: the highest]")
@click.option("--wait", type=click.IntRange(0, 30), metavar="SECONDS", help="Wait for the final state.")
@connected
def start(connection: Connection, workflow: str, context: Any, version: str | None, wait: int | None) -> None:
    """Start WORKFLOW (its name) with the initial CONTEXT: JSON or YAML, @FILE, or @-."""
    body: Json = {"workflowName": workflow, "initialContext": as_object(context)}
    if version is not None:
        body["version"] = version
    show(connection, connection.client.execute(body, wait=wait))


@click.command("status")
@click.argument("service_id", metavar="ID")
@click.argument("status", type=click.Choice(["active", "maintenance", "inactive"]))
@connected
def status(connection: Connection, service_id: str, status: str) -> None:
    """Set a service's status; maintenance holds its deliveries without loss."""
    show(connection, connection.client.services.act(service_id, "status", {"status": status}, method="PATCH"))


@click.command("replay")
@click.option(
    "-f",
    "--filter",
    "filters",
    type=Pair(),
    multiple=True,
    required=True,
    help="Which ones, such as destination=billing.",
)
@click.option("--rate", type=float, metavar="PER_SECOND", help="At most so many a second.")
@click.option("--dry-run", is_flag=True, help="Only say how many there are.")
@connected
def replay(connection: Connection, filters: Sequence[tuple[str, str]], rate: float | None, dry_run: bool) -> None:
    """Deliver dead letters once more."""
    body: Json = {"filter": dict(filters), "dryRun": dry_run}
    if rate is not None:
        body["ratePerSecond"] = rate
    show(connection, connection.client.call("POST", f"{connection.client.dead_letters.path}/replay", body))


#: A command of a group: made already, or an action by its name and what it does.
Further = click.Command | tuple[str, str]

#: Every group, what it is about, and its commands beside those that all have.
_GROUPS: Final[Sequence[tuple[Kind, str, Sequence[Further]]]] = (
    (_SERVICES, "The services that messages go to.", (status, ("probe", "Check a service's health now."))),
    (_CLIENTS, "The clients that may call the bus.", ()),
    (_ROUTES, "Which messages go where.", ()),
    (
        _INGRESS,
        "The webhooks that other systems post to the bus.",
        (ways_in.rotate_secret, ways_in.refusals),
    ),
    (_MESSAGE_TYPES, "The catalogue of message types and their schemas.", (ways_in.validate,)),
    (_LOOKUP_TABLES, "The tables that expressions of routes look into.", ()),
    (
        _LISTENERS,
        "The queues of other brokers that the bus consumes.",
        (ways_in.parked, ways_in.replay_parked),
    ),
    (_WORKFLOWS, "The workflows that can be run.", (trials.test,)),
    (_SCHEDULES, "The workflows that are started by a calendar.", ()),
    (
        _EXECUTIONS,
        "The runs of workflows.",
        (
            start,
            watch.watch,
            runs.rerun,
            runs.skip,
            runs.bulk,
            ("cancel", "Stop a run."),
            ("pause", "Hold a run."),
            ("resume", "Let a held run go on."),
            ("retry", "Try a failed run again."),
        ),
    ),
    (
        _MESSAGES,
        "The messages that were sent.",
        (("replay", "Send a message again, through today's routes."), ("cancel", "Stop what is not delivered yet.")),
    ),
    (_DEAD_LETTERS, "The deliveries that were given up.", (replay,)),
    (
        _BLOCKED_KEYS,
        "The ordering keys that do not get through; ID is that of the delivery ahead.",
        (
            ("retry", "Try the delivery ahead again, with a fresh budget."),
            ("skip", "Give up the delivery ahead: it is cancelled, and those behind it go on."),
            ("park", "Make the delivery ahead a dead letter; those behind it go on."),
        ),
    ),
)


def _whole_group(kind: Kind, about: str, further: Sequence[Further]) -> click.Group:
    group = _group(kind, about)
    for each in further:
        group.add_command(each if isinstance(each, click.Command) else _action_command(kind, *each))
    return group


COMMANDS: Final = (send, *(_whole_group(*each) for each in _GROUPS))
