"""`esb workflows test FILE`: trials of a definition on this machine, without a bus."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click
import yaml

from esb_api import trial_view
from esb_api.cli.output import show_json, table
from esb_api.schemas.orchestration import HistoryEntry
from esb_api.schemas.trials import TrialAnswer, TrialBody
from esb_api.validation import validated
from esb_workers.errors import FieldError, Invalid
from esb_workers.orchestration.definition import compile_definition
from esb_workers.orchestration.model import Program


@click.command("test")
@click.argument("file", type=click.Path(path_type=Path, exists=True, dir_okay=False, allow_dash=True))
@click.option("--history", is_flag=True, help="Print what happened in each test, step by step.")
@click.option("--only", metavar="NAME", help="Only the test of this name.")
@click.option("--json", "as_json", is_flag=True, help="Print the results as JSON.")
def test(file: Path, history: bool, only: str | None, as_json: bool) -> None:
    """Try out the workflow in FILE over mocked results.

    FILE is YAML or JSON: a workflow with `tests`, or `workflow` (one, or the path of its file) and `tests`. A test has
    name, initialContext, mocks, signals, startedAt and expect. Nothing is called, and nothing has to run. Exit code 1
    if a test does not come to what it expects.
    """
    try:
        program, name, version, cases = _read(file)
        results = [
            (title, trial_view.tried(program, body, name, version)) for title, body in cases if only in (None, title)
        ]
    except Invalid as error:
        raise click.ClickException("\n".join(f"{fault.path}: {fault.message}" for fault in error.errors)) from None
    if not results:
        raise click.ClickException("there is no such test" if only else "there are no tests")
    if as_json:
        show_json([{"name": title, **trial.model_dump(mode="json", by_alias=True)} for title, trial in results])
    else:
        for title, trial in results:
            _show(title, trial, history)
    if any(trial.passed is False for _, trial in results):
        raise click.exceptions.Exit(1)


def _read(file: Path) -> tuple[Program, str, str, list[tuple[str, TrialBody]]]:
    """The program of a file, its name and version, and its tests. Raises Invalid."""
    document = _loaded(file)
    workflow = document.get("workflow", document)
    if isinstance(workflow, str):
        workflow = _loaded(file.parent / workflow)
    if not isinstance(workflow, Mapping) or not ({"definition", "steps"} & set(workflow)):
        raise Invalid([FieldError("workflow", "must be a workflow, a definition, or the path of a file with one")])
    definition = (
        workflow["definition"] if "definition" in workflow else {k: v for k, v in workflow.items() if k != "tests"}
    )
    program = compile_definition(definition)
    given = document.get("tests", [{}])
    if not isinstance(given, list) or not all(isinstance(case, Mapping) for case in given):
        raise Invalid([FieldError("tests", "must be a list of objects")])
    cases = [_case(dict(case), number) for number, case in enumerate(given)]
    return program, str(workflow.get("name", "trial")), str(workflow.get("version", "0.0.0")), cases


def _case(case: dict[str, Any], number: int) -> tuple[str, TrialBody]:
    title = str(case.pop("name", f"test {number + 1}"))
    try:
        return title, validated(TrialBody, case)
    except Invalid as error:
        raise Invalid([FieldError(f"tests[{number}].{path}", message) for path, message in error.errors]) from None


class _PlainLoader(yaml.SafeLoader):
    """YAML whose scalars are what JSON has: a timestamp stays text."""


_PlainLoader.yaml_implicit_resolvers = {
    first: [(tag, regexp) for tag, regexp in resolvers if tag != "tag:yaml.org,2002:timestamp"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def _loaded(file: Path) -> Mapping[str, Any]:
    try:
        with click.open_file(str(file), encoding="utf-8") as stream:
            found = yaml.load(stream, _PlainLoader)  # noqa: S506  (a SafeLoader)
    except OSError as error:
        raise click.ClickException(f"{file}: {error.strerror}") from None
    except yaml.YAMLError as error:
        raise click.ClickException(f"{file} is neither JSON nor YAML: {error}") from None
    if not isinstance(found, Mapping):
        raise click.ClickException(f"{file} holds no object")
    return found


def _show(title: str, trial: TrialAnswer, history: bool) -> None:
    verdict = {True: "PASS", False: "FAIL", None: "RAN "}[trial.passed]
    click.echo(f"{verdict}  {title}: {trial.status} after {trial.duration} ms, {len(trial.calls)} calls")
    for difference in trial.differences:
        click.echo(f"      {difference.path}: expected {difference.expected!r}, got {difference.actual!r}")
    if trial.passed is not True and trial.error:
        click.echo(f"      error: {trial.error.get('class')}: {trial.error.get('message')}")
    for wait in trial.waiting:
        click.echo(f"      {wait.path} waits for {wait.reason}")
    if trial.stopped:
        click.echo(f"      {trial.stopped}")
    if trial.unmocked:
        click.echo(f"      without a mock: {', '.join(trial.unmocked)}")
    if history:
        click.echo(table([_row(trial, entry) for entry in trial.history], ("after", "what", "path", "told")))


def _row(trial: TrialAnswer, entry: HistoryEntry) -> dict[str, Any]:
    after = round((entry.at - trial.started_at).total_seconds() * 1000)
    return {"after": f"{after} ms", "what": entry.type, "path": entry.path, "told": _told(entry.detail)}


def _told(detail: Mapping[str, Any] | None) -> str | None:
    """What of an event's detail says most."""
    detail = detail or {}
    if error := detail.get("error"):
        delay = f", again in {detail['delayMs']} ms" if "delayMs" in detail else ""
        return f"{error.get('class')}{delay}"
    return next(
        (f"{name} {detail[name]}" for name in ("reason", "output", "input") if detail.get(name) is not None), None
    )
