"""The `esb` command: help on every level, exit codes, and calls that reach the API as they were meant."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import click
import pytest

from esb_api.cli.main import esb
from esb_api.cli.output import table
from esb_api.client import ApiError, Client


def run(
    *arguments: str, cwd: Path | None = None, env: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "esb_api.cli", *arguments], capture_output=True, text=True, check=False, cwd=cwd, env=env
    )


def _paths(command: click.Command, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    yield path
    if isinstance(command, click.Group):
        for name, inner in command.commands.items():
            yield from _paths(inner, (*path, name))


@pytest.mark.parametrize("path", [pytest.param(path, id=" ".join(("esb", *path))) for path in _paths(esb)])
def test_every_level_has_help_and_every_option_says_what_it_does(path: tuple[str, ...]) -> None:
    command: click.Command = esb
    for name in path:
        assert isinstance(command, click.Group)
        command = command.commands[name]
    assert command.help
    assert all(p.help for p in command.params if isinstance(p, click.Option) and p.name != "help")


def test_a_wrong_usage_is_exit_code_2() -> None:
    assert run("no-such-command").returncode == 2
    assert run("up", "--workers", "delivery=many").returncode == 2


@pytest.mark.parametrize(
    ("env", "named"),
    [
        ({"ESB_NO_SUCH": "1"}, "ESB_NO_SUCH: there is no such setting"),
        ({"ESB_API_PORT": "x"}, "ESB_API_PORT"),
        ({"ESB_DATABASE_URL": "mysql://x/y"}, "postgresql://"),
    ],
)
def test_a_wrong_setting_is_named_on_one_line_and_is_exit_code_1(
    env: dict[str, str], named: str, tmp_path: Path
) -> None:
    done = run("migrate", cwd=tmp_path, env=env)
    assert done.returncode == 1
    assert done.stderr.startswith("Error: ") and named in done.stderr
    assert done.stderr.count("\n") == 1


def test_help_is_neither_wrapped_nor_cut_when_nobody_watches() -> None:
    assert "show what happened.\n" in run("--help").stdout
    assert (
        "Settings are ESB_… environment variables or lines of a .env file. Exit codes: 0 done" in run("--help").stdout
    )


def test_a_table_shows_long_values_whole() -> None:
    long = "x" * 500
    text = table([{"id": long, "a": {"b": [1]}, "ok": True, "tags": ["p", "q"]}], ("id", "a.b", "ok", "tags", "none"))
    assert text.splitlines()[2].split("  ") == [long, "[1]", "yes", "p, q", "-"]


class Recorder(BaseHTTPRequestHandler):
    """Answers every call with what it was."""

    def _answer(self) -> None:
        raw = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        body = {
            "call": f"{self.command} {self.path}",
            "key": self.headers.get("X-API-Key"),
            "prefer": self.headers.get("Prefer"),
            "body": json.loads(raw) if raw else None,
            "items": [],
            "nextCursor": None,
        }
        status = 200
        if self.path.endswith("/bad"):
            status, body = (
                422,
                {"status": 422, "code": "invalid", "errors": [{"path": "name", "message": "is missing"}]},
            )
        encoded = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(encoded)))
        self.end_headers()
        self.wfile.write(encoded)

    do_GET = do_POST = do_PATCH = do_DELETE = _answer  # noqa: N815

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        pass


@pytest.fixture(scope="module")
def api() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Recorder)
    Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def ask(api: str, *arguments: str, cwd: Path) -> Any:
    done = run(*arguments, "--url", api, "--key", "k" * 20, "--json", cwd=cwd)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize(
    ("arguments", "call", "body"),
    [
        (["services", "list", "-f", "status=active", "--limit", "3"], "GET /services?status=active&limit=3", None),
        (["clients", "get", "a/b"], "GET /clients/a%2Fb", None),
        (["routes", "create", "{name: r, pattern: '#'}"], "POST /routing/routes", {"name": "r", "pattern": "#"}),
        (["services", "status", "s1", "maintenance"], "PATCH /services/s1/status", {"status": "maintenance"}),
        (["executions", "cancel", "e1"], "POST /orchestration/executions/e1/cancel", None),
        (["messages", "list"], "GET /routing/logs", None),
        (["ingress", "list"], "GET /routing/ingress", None),
        (["ingress", "refusals", "i1"], "GET /routing/ingress/i1/refusals", None),
        (
            ["ingress", "rotate-secret", "i1", "--overlap", "5"],
            "POST /routing/ingress/i1/secret/rotate",
            {"overlap": 5},
        ),
        (["message-types", "change", "m1", "mode: warn"], "PATCH /routing/message-types/m1", {"mode": "warn"}),
        (
            ["message-types", "validate", "m1", "[1]"],
            "POST /routing/message-types/m1/validate",
            {"payload": [1]},
        ),
        (["lookup-tables", "get", "t1"], "GET /routing/lookup-tables/t1", None),
        (["listeners", "parked", "l1"], "GET /routing/listeners/l1/parked", None),
        (["listeners", "replay", "l1", "p1"], "POST /routing/listeners/l1/parked/p1/replay", None),
        (["schedules", "create", "{name: s}"], "POST /orchestration/schedules", {"name": "s"}),
        (
            ["executions", "rerun", "e1", "--from", "pay", "--context", "{n: 1}"],
            "POST /orchestration/executions/e1/rerun",
            {"fromStep": "pay", "context": {"n": 1}},
        ),
        (["executions", "skip", "e1", "pay"], "POST /orchestration/executions/e1/skip", {"step": "pay"}),
        (
            [
                "executions",
                "bulk",
                "cancel",
                "-f",
                "status=failed",
                "-f",
                "status=paused",
                "-f",
                "ids=e1",
                "--compensate",
            ],
            "POST /orchestration/executions/bulk",
            {
                "action": "cancel",
                "filter": {"status": ["failed", "paused"], "ids": ["e1"]},
                "dryRun": False,
                "compensate": True,
            },
        ),
        (
            ["dead-letters", "replay", "-f", "destination=billing", "--dry-run"],
            "POST /routing/dead-letters/replay",
            {"filter": {"destination": "billing"}, "dryRun": True},
        ),
        (
            ["executions", "start", "user-onboarding", '{"email": "a@b.c"}'],
            "POST /orchestration/execute",
            {"workflowName": "user-onboarding", "initialContext": {"email": "a@b.c"}},
        ),
    ],
)
def test_a_command_is_one_call(api: str, arguments: list[str], call: str, body: object, tmp_path: Path) -> None:
    answer = ask(api, *arguments, cwd=tmp_path)
    assert answer["call"] == call
    assert answer["body"] == body
    assert answer["key"] == "k" * 20


def test_send_takes_its_payload_from_a_file_and_can_wait(api: str, tmp_path: Path) -> None:
    (tmp_path / "order.json").write_text('{"total": 3}')
    answer = ask(api, "send", "order.placed", "@order.json", "-H", "a=b", "--wait", "5", cwd=tmp_path)
    assert answer["prefer"] == "wait=5"
    assert answer["body"] == {
        "source": "esb-cli",
        "messageType": "order.placed",
        "payload": {"total": 3},
        "headers": {"a": "b"},
    }


def test_what_the_api_refuses_is_one_line_that_names_the_field(api: str) -> None:
    with Client(api) as bus, pytest.raises(ApiError, match=r"^name: is missing \(422 invalid\)$") as refused:
        bus.services.get("bad")
    assert refused.value.code == "invalid"


def test_an_api_that_is_not_there_is_said_plainly(tmp_path: Path) -> None:
    done = run("services", "list", "--url", "http://127.0.0.1:9", cwd=tmp_path)
    assert done.returncode == 1
    assert done.stderr == "Error: http://127.0.0.1:9 does not answer: Connection refused\n"


def test_the_demo_sends_the_twelve_webhooks_and_two_that_are_derived_from_them() -> None:
    from esb_api.cli.demo.documents import github_messages

    messages = github_messages("c")
    types = [message["messageType"] for message in messages]
    assert types[:3] == ["github.check_run.created", "github.deployment_status.created", "github.issue_comment.created"]
    assert "github.push" in types
    assert types[12:] == ["github.check_run.completed", "github.issues.opened"]
