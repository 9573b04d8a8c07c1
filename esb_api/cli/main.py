"""The `esb` command: `esb up` for a whole bus, single processes for containers, the REST API from a shell."""

from __future__ import annotations

import os
import sys

import click

from esb_api.cli import doctor, processes, rest
from esb_api.cli.demo.command import demo
from esb_api.cli.secrets import secrets
from esb_api.client import ApiError
from esb_workers.errors import EsbError


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="python-esb", prog_name="esb")
def esb() -> None:
    """An enterprise service bus: routing, delivery, registry and durable workflows.

    Settings are ESB_… environment variables or lines of a .env file. Exit codes: 0 done, 1 failed, 2 wrong usage.
    """


for _command in (*processes.COMMANDS, demo, doctor.doctor, secrets, *rest.COMMANDS):
    esb.add_command(_command)


def main() -> None:
    """The console script: errors raised on purpose become one clear line and exit code 1."""
    try:
        esb(prog_name="esb", **_layout())
    except BrokenPipeError:
        # The reader (`| head`) has gone; the interpreter's last flush must not complain about it either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except (EsbError, ApiError, OSError) as error:  # OSError: a folder that may not be written, a full disk
        click.echo(f"Error: {error}", err=True)
        sys.exit(1)


def _layout() -> dict[str, int]:
    """Help is laid out for the terminal; for a file or a pipe it is neither wrapped nor cut."""
    return {"max_content_width": 120} if sys.stdout.isatty() else {"terminal_width": 10_000}


if __name__ == "__main__":
    main()
