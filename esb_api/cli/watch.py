"""`esb executions watch ID`: a run as it goes on. A live tree on a terminal; elsewhere a line for each transition."""

from __future__ import annotations

import json
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any, Final, TypeVar

import click

from esb_api.cli import tree
from esb_api.cli.connection import Connection, connected
from esb_api.cli.output import show_json
from esb_api.client import ApiError

T = TypeVar("T")

FINAL: Final = frozenset({"completed", "failed", "cancelled", "compensated", "timed_out"})
#: How long an API that does not answer is asked again, seconds.
PATIENCE: Final = 60.0


@click.command("watch")
@click.argument("execution_id", metavar="ID")
@click.option(
    "--interval", type=click.FloatRange(0.1, 60), default=0.5, show_default=True, help="Seconds between looks."
)
@click.option("--plain", is_flag=True, help="A line for each transition, on a terminal too.")
@connected
def watch(connection: Connection, execution_id: str, interval: float, plain: bool) -> None:
    """Follow a run until it ends: its steps as a tree.

    Where the output is no terminal, every transition is a line; with --json, an object. Exit code 0 if the run has
    completed, 1 if it ended otherwise.
    """
    live = sys.stdout.isatty() and not plain and not connection.as_json
    status = (_draw if live else _tell)(connection, execution_id, interval)
    if status != "completed":
        raise click.exceptions.Exit(1)


def _draw(connection: Connection, execution_id: str, interval: float) -> str:
    drawn = 0
    while True:
        run = _patiently(lambda: connection.client.executions.get(execution_id))
        size = shutil.get_terminal_size()
        made = tree.lines(run, datetime.now(UTC), size.lines - 1, colour=True)
        made = [_cut(line, size.columns) for line in made]
        # Back to the first line of what was drawn before, each line overwritten and its rest cleared, then all below.
        back = f"\x1b[{drawn}F" if drawn else ""
        click.echo(back + "".join(f"{line}\x1b[K\n" for line in made) + "\x1b[J", nl=False, color=True)
        drawn = len(made)
        if run["status"] in FINAL:
            return str(run["status"])
        time.sleep(interval)


def _cut(line: str, columns: int) -> str:
    """A line no wider than the terminal: one that wraps would break the drawing. Colours take no room."""
    room = columns + (len(line) - len(click.unstyle(line)))
    return line if len(line) <= room else line[: room - 1] + "…"


def _tell(connection: Connection, execution_id: str, interval: float) -> str:
    history = _History(connection, execution_id)
    while True:
        status = str(_patiently(lambda: connection.client.executions.get(execution_id))["status"])
        # The history is read after the status: an ended run has nothing to add to it.
        for entry in history.news():
            show_json(entry) if connection.as_json else click.echo(_line(entry))
        if status in FINAL:
            return status
        time.sleep(interval)


class _History:
    """What is new in a run's history. Branches write at the same time, so that one's entry may come in before a later
    entry of another: what was told is known by what it says, not by its number.
    """

    def __init__(self, connection: Connection, execution_id: str) -> None:
        self._client = connection.client
        self._path = f"{connection.client.executions.one(execution_id)}/history"
        self._cursor: str | None = None
        self._told: set[str] = set()

    def news(self) -> Iterator[dict[str, Any]]:
        """Entries not told yet."""
        while True:
            page = _patiently(self._page)
            for entry in page["items"]:
                known = json.dumps({name: value for name, value in entry.items() if name != "seq"}, sort_keys=True)
                if known not in self._told:
                    self._told.add(known)
                    yield entry
            if not page["nextCursor"]:
                return
            self._cursor = page["nextCursor"]

    def _page(self) -> Any:
        return self._client.call("GET", self._path, query={"cursor": self._cursor, "limit": 200})


def _line(entry: dict[str, Any]) -> str:
    detail = entry["detail"] or {}
    told = [f"attempt {detail['attempt']}"] if detail.get("attempt", 1) > 1 else []
    if error := detail.get("error"):
        told.append(f"{error.get('class')}: {error.get('message')}")
    if "delayMs" in detail:
        told.append(f"again in {detail['delayMs']} ms")
    if detail.get("reason"):
        told.append(f"for {detail['reason']}" if entry["type"] == "step.waiting" else str(detail["reason"]))
    return "  ".join([entry["at"], entry["type"].ljust(16), entry["path"] or "", *told]).rstrip()


def _patiently(ask: Callable[[], T]) -> T:
    """An API that restarts is asked again for a while. Raises ApiError."""
    until = time.monotonic() + PATIENCE
    while True:
        try:
            return ask()
        except ApiError as error:
            if (error.status and error.status < 500) or time.monotonic() > until:
                raise
            time.sleep(1)
