"""`esb demo`: brings a bus up on free ports, tells the story to it, shows what happened, and takes it down."""

from __future__ import annotations

import shutil
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click

from esb_api.cli.demo.report import report
from esb_api.cli.demo.services import ExampleService
from esb_api.cli.demo.story import DemoFailed, Outcome, Story
from esb_api.cli.processes import esb_command, is_ready
from esb_api.client import ApiError
from esb_workers.node.supervisor import StopRequested
from esb_workers.node.up import Machine, Plan
from esb_workers.settings import Settings


@click.command()
@click.option("--keep", is_flag=True, help="Stay up afterwards, until Ctrl-C, to look around.")
def demo(keep: bool) -> None:
    """Bring up a whole bus with example services, put it to work, and show what happened.

    Uses a temporary directory, free ports and none of your settings; nothing is left behind.
    """
    clock = _Clock()
    plan = Plan(esb=esb_command(), ready=is_ready, flower=keep, why_embedded="a demo touches no other")
    with _temporary_folder() as folder:
        settings = Settings.load(environ={}, dotenv=None, data_dir=folder, api_port=0, flower_port=0)
        clock.say("starting PostgreSQL, Valkey, the API, a worker for each pool and the scheduler")
        try:
            with Machine(settings, plan, clock.say) as machine:
                clock.say(f"the bus is up: {machine.addresses.api}")
                _perform(machine, clock, keep)
                clock.say("stopping")
        except StopRequested:
            raise click.ClickException("interrupted") from None
    clock.say("stopped; nothing is left behind")


class _Clock:
    """Says things with the seconds since the start before them."""

    def __init__(self) -> None:
        self._start = time.monotonic()

    def say(self, line: str) -> None:
        click.echo(f"{time.monotonic() - self._start:5.1f} s  {line}")


class _Performance(threading.Thread):
    """The story on a thread of its own: the main one keeps the bus alive."""

    def __init__(self, story: Story, services: dict[str, ExampleService]) -> None:
        super().__init__(name="demo", daemon=True)
        self._story = story
        self._services = services
        self.outcome: Outcome | None = None
        self.error: Exception | None = None

    def run(self) -> None:
        try:
            self.outcome = self._story.tell(self._services)
        except Exception as error:  # handed to the main thread, which raises it
            self.error = error


def _perform(machine: Machine, clock: _Clock, keep: bool) -> None:
    story = Story(machine.addresses.api, machine.admin_key, clock.say)
    with story.services() as services:
        performance = _Performance(story, services)
        performance.start()
        machine.supervisor.watch(until=lambda: not performance.is_alive())
        if isinstance(performance.error, DemoFailed | ApiError):
            raise click.ClickException(str(performance.error))
        if performance.error is not None:
            raise performance.error
        if performance.outcome is None:
            raise click.ClickException("interrupted")
        click.echo(f"\n{report(performance.outcome)}\n")
        if keep:
            _stay(machine)


def _stay(machine: Machine) -> None:
    click.echo(f"API:          {machine.addresses.api}  (documents: {machine.addresses.api}/docs)")
    click.echo(f"Flower:       {machine.addresses.flower}  (log in with admin and the operator key)")
    click.echo(f"Operator key: {machine.admin_key}")
    click.echo("The bus stays up; Ctrl-C stops it.")
    machine.supervisor.watch()


@contextmanager
def _temporary_folder() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="esb-demo-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
