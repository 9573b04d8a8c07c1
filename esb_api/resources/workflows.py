"""Workflow definitions."""

from __future__ import annotations

from typing import Any

import orjson
from flask import Response

from esb_api.answers import answer, created, no_content
from esb_api.call import Call
from esb_api.etag import check_if_match
from esb_api.operations import Resource
from esb_api.pages import cursor_id, page
from esb_api.pictures import pictured
from esb_api.principals import Access
from esb_api.schemas.orchestration import (
    CheckAnswer,
    DraftBody,
    GraphAnswer,
    GraphQuery,
    KeptWorkflow,
    WorkflowAnswer,
    WorkflowBody,
    WorkflowPage,
    WorkflowQuery,
    WorkflowSummary,
)
from esb_api.schemas.problem import FieldProblem
from esb_workers.errors import Invalid
from esb_workers.orchestration.definition import compile_definition
from esb_workers.orchestration.published import definition_schema
from esb_workers.orchestration.start import NewWorkflow, check
from esb_workers.orchestration.unregistered import warnings
from esb_workers.store.workflows import WorkflowRow

workflows = Resource("workflows")

#: A version never changes, so its version of what can be written never does.
ETAG = 1


@workflows.operation(
    "POST", "/orchestration/workflows", access=Access.OPERATOR, body=WorkflowBody, answers={201: KeptWorkflow},
    refusals=(409,),
)  # fmt: skip
def create_workflow(call: Call, body: WorkflowBody) -> Response:
    """Keep a version of a workflow.

    Every fault of the definition is named at once, with its path. A version never changes: a change is a new version.
    """
    row = call.api.orchestration.define(_new(body.name, body.version, body), by=call.principal.actor)
    kept = KeptWorkflow(**_shown(row).model_dump(), warnings=_warnings(call, body.definition))
    return created(kept, f"/orchestration/workflows/{row.id}", etag=ETAG)


@workflows.operation(
    "POST", "/orchestration/workflows/validate", access=Access.OPERATOR, body=DraftBody, answers={200: CheckAnswer}
)
def validate_workflow(call: Call, body: DraftBody) -> Response:
    """Check a definition without keeping it: all its faults, each with its path."""
    try:
        check(_new(body.name or "draft", body.version or "0.0.0", body), call.api.orchestration.types())
    except Invalid as error:
        faults = [FieldProblem(path=fault.path, message=fault.message) for fault in error.errors]
        return answer(CheckAnswer(valid=False, errors=faults, warnings=[]))
    return answer(CheckAnswer(valid=True, errors=[], warnings=_warnings(call, body.definition)))


def _warnings(call: Call, definition: Any) -> list[FieldProblem]:
    with call.api.database.cursor() as cursor:
        found = warnings(cursor, compile_definition(definition, call.api.orchestration.types()))
    return [FieldProblem(path=path, message=message) for path, message in found]


@workflows.operation(
    "GET", "/orchestration/workflows/schema", access=Access.OPEN, answers={200: "application/schema+json"}
)
def read_definition_schema(call: Call) -> Response:
    """Read the JSON Schema of definitions, for editors; with the step types that are installed here.

    `#/$defs/workflow` is that of a whole workflow: name, version and definition.
    """
    return Response(
        orjson.dumps(definition_schema(call.api.orchestration.types())), content_type="application/schema+json"
    )


@workflows.operation(
    "GET", "/orchestration/workflows", access=Access.CLIENT, query=WorkflowQuery, answers={200: WorkflowPage}
)
def list_workflows(call: Call, query: WorkflowQuery) -> Response:
    """List workflows, newest first. A client sees names, versions and schemas."""
    rows = call.api.orchestration.page(query.limit, cursor_id(query.cursor), query.name, query.version)
    item = _shown if call.principal.client is None else _summary
    found: dict[str, Any] = page(rows, query.limit, item, lambda row: row.id)
    return answer(WorkflowPage(**found))


@workflows.operation("GET", "/orchestration/workflows/{id}", access=Access.OPERATOR, answers={200: WorkflowAnswer})
def read_workflow(call: Call, workflow_id: str) -> Response:
    """Read one version of a workflow."""
    return answer(_shown(call.api.orchestration.workflow(workflow_id)), etag=ETAG)


@workflows.operation(
    "DELETE", "/orchestration/workflows/{id}", access=Access.OPERATOR, answers={204: None}, refusals=(409,),
    headers=("If-Match",),
)  # fmt: skip
def delete_workflow(call: Call, workflow_id: str) -> Response:
    """Delete a version of a workflow that has no open runs. Its finished runs stay."""
    call.api.orchestration.workflow(workflow_id)
    check_if_match(call.headers.get("If-Match"), ETAG)
    call.api.orchestration.forget(workflow_id, by=call.principal.actor)
    return no_content()


@workflows.operation(
    "GET", "/orchestration/workflows/{id}/graph", access=Access.OPERATOR, query=GraphQuery, answers={200: GraphAnswer}
)
def read_workflow_graph(call: Call, workflow_id: str, query: GraphQuery) -> Response:
    """Draw a workflow: as nodes and edges, as a Mermaid flowchart, or as SVG.

    `format` wins over `Accept`, which says `image/svg+xml` or `text/vnd.mermaid`; without either, nodes and edges.
    """
    row = call.api.orchestration.workflow(workflow_id)
    program = call.api.orchestration.programs.get(row.id).program
    return pictured(call, query, program)


def _new(name: str, version: str, body: WorkflowBody | DraftBody) -> NewWorkflow:
    return NewWorkflow(name, version, body.description, body.definition, orjson.dumps(body.definition).decode())


def _shown(row: WorkflowRow) -> WorkflowAnswer:
    return WorkflowAnswer(**_common(row), definition=orjson.loads(row.definition))


def _summary(row: WorkflowRow) -> WorkflowSummary:
    definition = orjson.loads(row.definition)
    return WorkflowSummary(
        **_common(row),
        input_schema=definition.get("inputSchema"),
        output_schema=definition.get("outputSchema"),
    )


def _common(row: WorkflowRow) -> dict[str, Any]:
    return {
        "id": row.id,
        "name": row.name,
        "version": row.version,
        "description": row.description,
        "created_at": row.created_at,
        "updated_at": row.created_at,
    }
