"""The front door of workflows: definitions kept, runs started. One transaction a call, then a ring."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from esb_workers import drill
from esb_workers.errors import Conflict, FieldError, Invalid, NotFound
from esb_workers.orchestration.catalogue import known_types
from esb_workers.orchestration.control import POOL, Control
from esb_workers.orchestration.definition import compile_definition
from esb_workers.orchestration.failures import StepFailed
from esb_workers.orchestration.limits import limits_of
from esb_workers.orchestration.lookup import find_workflow
from esb_workers.orchestration.programs import Programs, Workflow
from esb_workers.orchestration.steps.base import StepType
from esb_workers.registry.versions import parse_version
from esb_workers.runtime.ringer import Ringer
from esb_workers.store import starts, workflows
from esb_workers.store.engine import Cursor, Database
from esb_workers.store.ids import as_id, new_id
from esb_workers.store.json import dumps
from esb_workers.store.starts import Start, Started
from esb_workers.store.workflows import WorkflowRow


@dataclass(frozen=True, slots=True)
class NewWorkflow:
    """A definition to be kept. `text` is its JSON as it came."""

    name: str
    version: str
    description: str | None
    definition: Any
    text: str


@dataclass(frozen=True, slots=True)
class NewExecution:
    """A run to be started, by workflow id, or by name and perhaps version."""

    input: Mapping[str, Any]
    correlation_id: str
    workflow_id: str | None = None
    workflow_name: str | None = None
    version: str | None = None
    client_id: str | None = None
    traceparent: str | None = None
    business_key: str | None = None
    reuse: str = "allow_after_end"  # of the business key
    priority: int = 5
    delay_ms: int = 0
    schedule_id: str | None = None
    scheduled_for: datetime | None = None
    delivery_id: str | None = None
    revision: int | None = None  # of what the caller knew of its client; None: nothing was remembered


class Orchestration:
    """The front door of one process."""

    def __init__(self, database: Database, ringer: Ringer) -> None:
        self._database = database
        self._ringer = ringer
        self.programs = Programs(database)
        self.control = Control(database, ringer, self.programs)

    def types(self) -> Mapping[str, StepType]:
        """The step types that definitions may name now."""
        return known_types(self._database)

    # --- definitions ---------------------------------------------------------------------------------

    def define(self, new: NewWorkflow, *, by: str) -> WorkflowRow:
        """Keep a version. Raises Invalid with every fault, Conflict if name and version are taken."""
        check(new, self.types())
        workflow_id = new_id()
        row = {
            "id": workflow_id,
            "name": new.name,
            "version": new.version,
            "description": new.description,
            "definition": new.text,
        }
        with self._database.raw_transaction() as cursor:
            if not workflows.insert(cursor, row):
                raise Conflict(
                    f"version {new.version} of {new.name} exists; a change is a new version", code="duplicate"
                )
            workflows.note(cursor, by, "create", "workflow", workflow_id, new.name, {"version": new.version})
            kept = workflows.get(cursor, workflow_id)
        assert kept is not None
        return kept

    def workflow(self, workflow_id: str) -> WorkflowRow:
        """Raises NotFound."""
        with self._database.cursor() as cursor:
            row = workflows.get(cursor, workflow_id)
        if row is None:
            raise NotFound
        return row

    def page(self, limit: int, before: str | None, name: str | None, version: str | None) -> list[WorkflowRow]:
        """Newest first, one more than `limit` if there are more."""
        with self._database.cursor() as cursor:
            return workflows.page(cursor, limit=limit, before=before, name=name, version=version)

    def forget(self, workflow_id: str, *, by: str) -> None:
        """Delete a version. Raises NotFound, Conflict while runs of it are open."""
        with self._database.raw_transaction() as cursor:
            row = workflows.get(cursor, workflow_id)
            outcome = workflows.delete(cursor, workflow_id)
            if outcome == "missing" or row is None:
                raise NotFound
            if outcome == "busy":
                raise Conflict("runs of this workflow are open", code="workflow_in_use")
            workflows.note(cursor, by, "delete", "workflow", workflow_id, row.name, {"version": row.version})

    # --- starting ------------------------------------------------------------------------------------

    def find(self, new: NewExecution) -> Workflow:
        """The workflow a start names. Raises NotFound, Invalid if the input does not fit its schema."""
        known = as_id(new.workflow_id) if new.workflow_id else None
        if known is None:
            with self._database.cursor() as cursor:
                known = find_workflow(cursor, new.workflow_id, new.workflow_name, new.version)
        if known is None:
            raise NotFound("there is no such workflow", code="workflow_not_found")
        workflow = self.programs.get(known)
        schema = workflow.program.input_schema
        if schema is not None and (faults := schema.faults(dict(new.input), "initialContext")):
            raise Invalid(faults)
        return workflow

    def start(self, new: NewExecution, workflow: Workflow, cursor: Cursor | None = None) -> Started:
        """Start a run, in the caller's transaction if there is one. Call `started` after the commit.

        'ok' and its id; or 'existing' and another's, where that is wanted back. Raises NotFound if the workflow was
        deleted, Conflict if its business key is taken or as many run as may, Invalid if a limit's key cannot be
        computed, StaleRevision.
        """
        run = new_id()
        try:
            limits = limits_of(workflow, new.input, run, new.correlation_id)
        except StepFailed as failed:
            raise Invalid([FieldError("initialContext", f"definition.concurrency.key: {failed}")]) from None
        start = Start(
            id=run,
            workflow=workflow.id,
            lane=workflow.lane_id,
            client=new.client_id,
            correlation=new.correlation_id,
            trace=new.traceparent,
            name=workflow.name,
            business_key=new.business_key,
            reuse=new.reuse,
            priority=new.priority,
            input=dumps(dict(new.input)),
            timeout=workflow.program.timeout,
            revision=new.revision,
            limits=limits,
            delay_ms=new.delay_ms,
            schedule=new.schedule_id,
            due=new.scheduled_for,
            delivery=new.delivery_id,
        )
        if cursor is not None:
            started = starts.execute(cursor, start)
        else:
            with self._database.cursor() as own:  # one statement: a transaction of its own
                started = starts.execute(own, start)
        if started.outcome == "gone":
            raise NotFound("there is no such workflow", code="workflow_not_found")
        if started.outcome == "busy":
            raise Conflict(
                f"the run {started.id} has this business key", code="business_key_in_use", executionId=started.id
            )
        if started.outcome == "limit":
            raise Conflict("as many runs are under way as the workflow allows", code="concurrency_limit")
        drill.crash_point(drill.AFTER_INSERT)
        return started

    def started(self) -> None:
        """After the commit of a start: ring."""
        drill.crash_point(drill.AFTER_COMMIT_BEFORE_RING)
        self._ringer.ring(POOL)


def check(new: NewWorkflow, types: Mapping[str, StepType]) -> None:
    """Raises Invalid with every fault of a workflow."""
    faults: list[FieldError] = []
    try:
        parse_version(new.version)
    except ValueError as error:
        faults.append(FieldError("version", str(error)))
    try:
        compile_definition(new.definition, types)
    except Invalid as error:
        faults += error.errors
    if faults:
        raise Invalid(faults)
