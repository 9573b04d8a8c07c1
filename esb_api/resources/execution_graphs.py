"""The picture of a run."""

from __future__ import annotations

from flask import Response

from esb_api.call import Call
from esb_api.operations import Resource
from esb_api.pictures import pictured
from esb_api.principals import Access
from esb_api.resources.executions import own_run
from esb_api.schemas.orchestration import GraphAnswer, GraphQuery
from esb_workers.orchestration import graphs
from esb_workers.orchestration.views import FINAL
from esb_workers.store import runs

execution_graphs = Resource("execution graphs")


@execution_graphs.operation(
    "GET", "/orchestration/executions/{id}/graph", access=Access.CLIENT, query=GraphQuery, answers={200: GraphAnswer}
)
def read_execution_graph(call: Call, execution_id: str, query: GraphQuery) -> Response:
    """Draw a run: its definition, each step in the state that it is in. A client sees its own only.

    `format` wins over `Accept`, which says `image/svg+xml` or `text/vnd.mermaid`; without either, nodes and edges.
    """
    with call.api.database.cursor() as cursor:
        row = own_run(call, cursor, execution_id)
        ended = runs.step_states(cursor, execution_id)
    program = call.api.orchestration.programs.get(row.workflow_id).program
    return pictured(call, query, program, graphs.states_of(program, ended, row.status, row.status in FINAL))
