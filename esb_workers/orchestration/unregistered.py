"""What a definition names and nobody has registered: no fault, for it may come later, but worth a warning."""

from __future__ import annotations

from collections.abc import Iterator

from esb_workers.errors import FieldError
from esb_workers.orchestration.model import Program, Step
from esb_workers.orchestration.steps.base import Mention
from esb_workers.registry.selection import Destination
from esb_workers.store import workflows
from esb_workers.store.engine import Cursor


def warnings(cursor: Cursor, program: Program) -> list[FieldError]:
    """Each place that names a service or a workflow that is not there now."""
    found = [
        (f"{step.where}.config.{mention.path}", mention)
        for step in _steps(program)
        if step.config is not None
        for mention in step.kind.mentions(step.config)
    ]
    services = {name for _, mention in found if mention.what == "service" and (name := _service(mention)) is not None}
    there = workflows.registered_services(cursor, sorted(services))
    versions = {m.name: [v for v, _ in workflows.versions(cursor, m.name)] for _, m in found if m.what == "workflow"}
    return [FieldError(path, told) for path, mention in found if (told := _told(mention, there, versions)) is not None]


def _steps(program: Program) -> Iterator[Step]:
    for step in program.steps.values():
        yield step
        if step.compensate is not None:
            yield step.compensate


def _service(mention: Mention) -> str | None:
    try:
        return Destination.parse(mention.name).name
    except ValueError:
        return None


def _told(mention: Mention, services: set[str], versions: dict[str, list[str]]) -> str | None:
    if mention.what == "service":
        name = _service(mention)
        if name is None:
            return f"{mention.name!r} is no service name with a version range"
        return None if name in services else f"no service is registered as {name!r}"
    there = versions[mention.name]
    if not there:
        return f"there is no workflow {mention.name!r}"
    missing = mention.version is not None and mention.version not in there
    return f"workflow {mention.name!r} has no version {mention.version}" if missing else None
